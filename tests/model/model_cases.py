"""Models with random gates for the tests of this room: untrained gates would hide most mistakes."""

from __future__ import annotations

from typing import Any

import torch

from mtids_dist.model import MTIDS

TASKS = {"joint": 6, "region": 3, "metastasis": 2}
SMALL = {
    "channels": (8, 16),
    "expert_width": 8,
    "context_width": 8,
    "shared_experts": 3,
    "task_experts": {"joint": 1, "region": 2, "metastasis": 3},
}


def random_model(seed: int, **settings: Any) -> MTIDS:
    """A small model in float64 with every parameter away from its initial value."""
    print(f"seed {seed}, settings {settings}")  # pytest shows it when the test fails
    torch.manual_seed(seed)
    model = MTIDS(TASKS, **SMALL | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def random_crops(seed: int, batch: int = 4, shape: tuple[int, int, int] = (6, 9, 8)) -> torch.Tensor:
    return torch.randn(batch, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
