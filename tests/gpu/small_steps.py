"""A small network with all that a step has, and batches for it: what the tests of a single rank train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mtids_dist.data import Batch
from mtids_dist.tasks import MTIDS_TASKS

if TYPE_CHECKING:
    from mtids_dist.train import TrainJob
    from mtids_dist.train.learner import Learner

ROWS, SIDE, SEED = 12, 8, 3


def small_job(*, stage: int, precision: str = "fp32", method: str = "ddgb", gramian: str = "exact") -> TrainJob:
    """Return a job of the three tasks, without dropout, which devices draw differently."""
    from mtids_dist.train import TrainJob

    return TrainJob.model_validate(
        {
            "seed": SEED,
            "model": {"channels": [8, 16], "expert_width": 8, "context_width": 8, "shared_experts": 2, "task_experts": 1},
            "balance": {"method": method, "gramian": gramian},
            "train": {
                "optimizer": {"name": "sgd", "learning_rate": 0.1, "gradient_clipping": 0.3, "warmup_share": 0},
                "scale": {"zero_stage": stage, "precision": precision},
            },
        }
    )


def small_learner(job: TrainJob, *, total_steps: int) -> tuple[Learner, dict[str, Tensor]]:
    """Return a learner on this process's device, and the fp32 weights that it begins with, by parameter name, on the CPU."""
    from mtids_dist.train import build_network
    from mtids_dist.train.learner import Learner

    torch.manual_seed(SEED)
    model = build_network(job)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    counts: Any = {name: np.arange(1, task.num_classes + 1) for name, task in MTIDS_TASKS.items()}
    return Learner(job, counts, model, batch_size=ROWS, total_steps=total_steps), start


def batches(count: int) -> list[Batch]:
    """Return batches on the CPU, crops [ROWS, 1, SIDE, SIDE, SIDE]; in each a part of the labels is missing."""
    generator = torch.Generator().manual_seed(SEED)
    return [_batch(generator) for _ in range(count)]


def _batch(generator: torch.Generator) -> Batch:
    crops = torch.randn(ROWS, 1, SIDE, SIDE, SIDE, generator=generator)
    labels = {}
    for name, task in MTIDS_TASKS.items():
        known = torch.rand(ROWS, generator=generator) < 0.7
        labels[name] = torch.where(known, torch.randint(0, task.num_classes, (ROWS,), generator=generator), -1)
    return Batch(crops, labels)
