"""Settings refuse what can't be built, in one line, and tell the model's size before it is."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from model_cases import TASKS

from mtids_dist.model import MTIDS, ModelConfig, ParamCount, Routing, Trunk

BAD_SETTINGS = [
    ({"trunk": "vgg"}, "trunk must be one of small, resnet10, resnet18, resnet50, found 'vgg'"),
    ({"routing": "soft"}, "routing must be one of dbr"),
    ({"channels": ()}, "channels must have at least one entry"),
    ({"channels": (8, 20)}, "channels must be positive multiples of 8"),
    ({"expert_width": 0}, "expert_width must be positive"),
    ({"context_width": 12}, "context_width must be positive multiples of 8"),
    ({"branch_temperature": 0.0}, "branch_temperature must be positive and finite, found 0.0"),
    ({"expert_temperature": float("nan")}, "expert_temperature must be positive"),
    ({"shared_experts": -1}, "shared_experts must be at least 0, found -1"),
    ({"task_experts": {"joint": 1, "region": -2}}, "task_experts must be at least 0"),
    ({"top_k": 0}, "top_k must be null or at least 1"),
    ({"dropout": 1.0}, "dropout must lie in"),
    ({"routing": "tied", "branch_temperature": 2.0}, "branch_temperature must be 1 with routing tied"),
    ({"routing": "uniform", "expert_temperature": 2.0}, "expert_temperature must be 1 with routing uniform"),
    ({"routing": "hard", "top_k": 1}, "top_k must be null with routing hard"),
]
BAD_TASKS = [
    ({}, {}, "tasks must name at least one task"),
    ({"a.b": 2}, {}, "tasks must have names without dots, found 'a.b'"),
    ({"type": 2}, {}, "tasks must not be named like an attribute of a torch module, found 'type'"),
    ({"training": 2}, {}, "tasks must not be named like"),
    ({"a": 1}, {}, "tasks must have at least 2 classes"),
    ({"a": 2, "b": 2}, {"task_experts": {"a": 1}}, "task_experts must name exactly the tasks"),
    ({"a": 2}, {"shared_experts": 0, "task_experts": 0}, "task_experts must be positive for 'a': shared_experts is 0"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=lambda v: str(v))
def test_bad_settings_name_parameter_rule_and_value(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        ModelConfig(**settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("tasks", "settings", "message"), BAD_TASKS, ids=lambda v: str(v))
def test_bad_tasks_are_refused_when_building_and_when_counting(tasks: dict, settings: dict, message: str) -> None:
    for use in (ModelConfig(**settings).build, ModelConfig(**settings).num_params):
        with pytest.raises(ValueError, match="must") as caught:
            use(tasks)
        assert message in str(caught.value)


def test_an_unknown_task_has_no_parameters() -> None:
    with pytest.raises(ValueError, match="found 'station'"):
        MTIDS(TASKS).task_parameters("station")


COUNTED = [pytest.param({"trunk": trunk}, marks=pytest.mark.slow) for trunk in Trunk if trunk is not Trunk.SMALL]
COUNTED += [{"routing": routing} for routing in Routing]
COUNTED += [
    {"shared_experts": 0},
    {"task_experts": 0},
    {"shared_experts": 5, "task_experts": {"joint": 3, "region": 0, "metastasis": 1}},
]


@pytest.mark.parametrize("settings", COUNTED, ids=str)
def test_num_params_equals_the_built_models(settings: dict) -> None:
    config = ModelConfig(**settings)
    count, model = config.num_params(TASKS), config.build(TASKS)
    assert count.total == sum(p.numel() for p in model.parameters())
    assert count.shared == sum(p.numel() for p in model.shared_parameters())
    assert count.private == sum(p.numel() for task in TASKS for p in model.task_parameters(task))
    assert count == ParamCount.of(model)


def test_counting_allocates_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    count = ModelConfig(expert_width=2**30).num_params(TASKS)
    assert count.shared_experts > 2 * 27 * 64 * 2**30  # 15 TB in float32: not even one expert could be allocated
    assert torch.equal(torch.get_rng_state(), state)


def test_names_of_parameters_are_stable() -> None:
    model = MTIDS({"region": 3}, shared_experts=2, task_experts=1, channels=(8,))
    wanted = ["trunk.blocks.0.conv.weight", "trunk.blocks.0.norm.weight", "trunk.blocks.0.norm.bias"]
    wanted += [
        f"{owner}.{p}" for owner in ("shared_experts", "task_experts.region") for p in ("weight", "norm_weight", "norm_bias")
    ]
    wanted += [f"adaptors.region.block.{name}" for name in ("conv.weight", "norm.weight", "norm.bias")]
    wanted += [f"gating.region.{rows}.{name}" for rows in ("shared", "private", "branch") for name in ("weight", "bias")]
    wanted += ["heads.region.linear.weight", "heads.region.linear.bias"]
    assert [name for name, _ in model.named_parameters()] == wanted
    assert model.gating["region"].shared.weight.shape == (2, 8 + 16)
    assert model.tasks == {"region": 3}


def test_a_model_survives_pickle_and_copy_with_its_settings() -> None:
    model = MTIDS(TASKS, routing="tied", task_experts={"joint": 1, "region": 2, "metastasis": 1})
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert copied.config == model.config
        assert copied.config.build(TASKS).state_dict().keys() == model.state_dict().keys()


@pytest.mark.slow
def test_the_room_needs_torch_and_safetensors_only() -> None:
    """Other rooms' libraries are made unimportable; MONAI is for the ResNets alone."""
    blocked = ["pydantic", "ray", "deepspeed", "torchjd", "pyarrow", "pydicom", "matplotlib", "monai", "typer"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
    code += "import torch; from mtids_dist.model import MTIDS; MTIDS({'a': 2})(torch.zeros(1, 1, 8, 8, 8))\n"
    code += "print(sorted(m for m in sys.modules if m.startswith('mtids_dist.') and not m.startswith('mtids_dist.model')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['mtids_dist.errors']"
