"""The run description: defaults, overrides, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mtids_dist.config import RunConfig, load_run
from mtids_dist.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_descriptions_are_valid_and_resolve_to_themselves(path: Path, tmp_path: Path) -> None:
    config = load_run(path)
    again = tmp_path / "run.yaml"
    again.write_text(yaml.safe_dump(config.resolved()))
    assert load_run(again) == config


def test_mtids_three_tasks_are_the_default() -> None:
    assert RunConfig().num_classes == {"joint": 22, "region": 11, "metastasis": 2}


def test_overrides_are_laid_over_the_file() -> None:
    config = load_run(
        CONFIGS / "demo.yaml",
        ["train.epochs=3", "data.augment.flip=[z]", "model.task_experts={joint: 2, region: 1, metastasis: 1}"],
    )
    assert (config.train.epochs, config.data.augment.flip) == (3, ("z",))
    assert config.model.task_experts == {"joint": 2, "region": 1, "metastasis": 1}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.shred_experts=3", ["unknown key model.shred_experts", "shared_experts"]),
        ("trian.epochs=3", ["unknown key trian", "train"]),
        ("tasks.joint.colum=station", ["unknown key tasks.joint.colum", "column"]),
        ("balance.methd=ddgb", ["unknown key balance.methd", "method"]),
        ("balance.method=ddbg", ["balance", "ddgb"]),
        ("train.epochs=-1", ["train.epochs", "greater than 0", "found -1"]),
        ("train.optimizer.name=adamv", ["train.optimizer.name", "adamw"]),
        ("tasks.joint.classes=regions", ["tasks.joint"]),
        ("train.epochs", ["KEY=VALUE"]),
        ("train.epochs.x=1", ["single value"]),
        ("model.task_experts={joint: 2}", ["model.task_experts"]),
        ("balance.gramian=exakt", ["exact, sketch, representation", "exakt"]),
        ("balance.every=0", ["`every` must be at least 1"]),
        ("balance.sketch_size=0", ["`m` must be at least 1"]),
        ("balance={method: uw, every: 2}", ["'uw' weights losses"]),
        ("balance={method: uw, normalise: length}", ["none or weights"]),
        ("balance={method: krum, options: {n_byzantine: 1}}", ["'krum' can't balance 3 tasks"]),
        ("balance={method: constant, options: {weights: [1, 2]}}", ["'constant' can't balance 3 tasks"]),
        ("train.scale.micro_batches=3", ["multiple of train.scale.micro_batches", "found 8"]),
        ("train.scale.deepspeed={fp16: {enabled: true}}", ["train.scale.deepspeed", "fp16 can't be enabled", "bf16"]),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_run(CONFIGS / "demo.yaml", [override])
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_no_such_file() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such run description"):
        load_run(Path("nowhere.yaml"))


def test_schema_tells_what_each_setting_means() -> None:
    schema = RunConfig.model_json_schema()
    assert "train" in schema["properties"]
    assert "ZeRO" in str(schema["$defs"]["ScaleConfig"]["properties"]["zero_stage"])
