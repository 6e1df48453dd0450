"""A checkpoint of any ZeRO stage and number of ranks, resized, goes on in any other as the original would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from torch import Tensor

from mtids_dist.data import Batch
from mtids_dist.model import plan_resize
from mtids_dist.tasks import MTIDS_TASKS
from mtids_dist.train import PortableState, Progress, TrainJob

ROWS, BEFORE, SEED = 12, 4, 13
SHARED, PRIVATE = 6, 4
CROPS = torch.randn(ROWS, 1, 6, 6, 6, generator=torch.Generator().manual_seed(SEED))


def job(stage: int, shared: int = 2, private: int = 1) -> TrainJob:
    return TrainJob.model_validate(
        {
            "model": {
                "channels": [8], "expert_width": 8, "context_width": 8, "shared_experts": shared, "task_experts": private,
                "branch_temperature": 0.7, "expert_temperature": 1.6,
            },
            "balance": {"method": "equal"},  # the same task weights whatever the Gramian
            "train": {
                "optimizer": {"learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant", "warmup_share": 0.0},
                "scale": {"zero_stage": stage, "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}},
            },
        }
    )  # fmt: skip


def learner(described: TrainJob, weights: dict[str, Tensor] | None = None) -> Any:
    import torch.distributed as dist

    from mtids_dist.train.learner import Learner

    torch.manual_seed(SEED)
    model = described.model.build(described.num_classes)
    if weights is not None:
        model.load_state_dict(weights)
    counts = {name: np.ones(task.num_classes, dtype=np.int64) for name, task in MTIDS_TASKS.items()}
    return Learner(described, counts, model, batch_size=ROWS // dist.get_world_size(), total_steps=100)


def take_step(which: Any, seed: int) -> None:
    import torch.distributed as dist

    generator = torch.Generator().manual_seed(seed)
    labels = {name: torch.randint(0, t.num_classes, (ROWS,), generator=generator) for name, t in MTIDS_TASKS.items()}
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    which.step(Batch(CROPS[mine], {name: label[mine] for name, label in labels.items()}))


def train_and_save(folder: Path, stage: int) -> None:
    from mtids_dist.train.checkpoint import save_checkpoint

    which = learner(job(stage))
    for step in range(BEFORE):
        take_step(which, step)
    save_checkpoint(which, Progress(step=BEFORE), folder)


def one_more_step(folder: Path, described: TrainJob) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after a step from the state in `folder`."""
    from mtids_dist.train.checkpoint import load_checkpoint, whole_weights

    saved = PortableState.read(folder)
    which = learner(described, dict(saved.weights))
    load_checkpoint(which, saved, folder)
    before = whole_weights(which.model)
    take_step(which, BEFORE)
    return before, whole_weights(which.model)


@torch.no_grad()
def logits(described: TrainJob, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    model = described.model.build(described.num_classes)
    model.load_state_dict(weights)
    return model.eval()(CROPS)  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "ranks", "later_stage", "later_ranks"), [(3, 2, 0, 1), (1, 1, 2, 2)])
def test_a_resized_checkpoint_goes_on_as_the_original(
    tmp_path: Path, stage: int, ranks: int, later_stage: int, later_ranks: int
) -> None:
    run_ranks(train_and_save, ranks, tmp_path / "original", stage)
    state = PortableState.read(tmp_path / "original")
    small, large = job(later_stage), job(later_stage, SHARED, PRIVATE)
    model = small.model.build(small.num_classes)
    model.load_state_dict(dict(state.weights))
    plan = plan_resize(model, shared_experts=SHARED, task_experts=PRIVATE)
    PortableState(
        progress=state.progress,
        weights=plan.apply_to_weights(state.weights),
        moments=plan.apply_to_moments(state.moments),
        balancer=state.balancer,
    ).write(tmp_path / "resized")

    before, after = run_ranks(one_more_step, later_ranks, tmp_path / "original", small)[0]
    grown_before, grown_after = run_ranks(one_more_step, later_ranks, tmp_path / "resized", large)[0]
    whole, grown = logits(small, before), logits(large, grown_before)
    assert max(float((whole[task] - grown[task]).abs().max()) for task in whole) < 1e-5

    moved = {name: after[name] - before[name] for name in before}
    grown_moved = {name: grown_after[name] - grown_before[name] for name in grown_before}
    assert max(float(change.abs().max()) for change in moved.values()) > 5e-4
    for new, origin in enumerate(plan.shared):
        for part in ("weight", "norm_weight", "norm_bias"):
            close(grown_moved[f"shared_experts.{part}"][new], moved[f"shared_experts.{part}"][origin.sources[0]])
        for task in small.tasks:
            for part in ("weight", "bias"):
                name = f"gating.{task}.shared.{part}"
                close(grown_moved[name][new], moved[name][origin.sources[0]])
    for task in small.tasks:
        for new in range(PRIVATE):
            close(grown_moved[f"task_experts.{task}.weight"][new], moved[f"task_experts.{task}.weight"][0])
    close(grown_moved["trunk.blocks.0.conv.weight"], moved["trunk.blocks.0.conv.weight"])


def close(found: Tensor, wanted: Tensor) -> None:
    """To 1e-5: Adam's epsilon, which a copy's smaller moments feel sooner, shows above rounding."""
    assert float((found - wanted).abs().max()) < 1e-5
