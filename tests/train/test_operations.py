"""How much Python asks of torch in one step of configs/mtids.yaml: on a GPU a small step costs what is dispatched and waited for.

Operations are counted as they reach torch's dispatcher, so that a machine without a GPU counts what one would be asked to do.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from torch.utils._python_dispatch import TorchDispatchMode

SHIPPED = Path(__file__).parents[2] / "configs" / "mtids.yaml"
WAYS = {
    "plain": ("balance.method=none", "balance.options={}"),
    "exact": (),
    "representation": ("balance.gramian=representation",),
    "between": ("balance.every=1000",),
}
WAITS = ("aten._local_scalar_dense", "aten.is_nonzero", "aten.nonzero", "aten.masked_select")
"""What makes the host wait for a GPU."""
SEED = 0


class Counted(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.by_name[str(operation)] += 1
        return operation(*args, **(kwargs or {}))


def counted() -> dict[str, tuple[int, int]]:
    """Operations and waits of the third step, by way."""
    import numpy as np

    from mtids_dist.config import load_run
    from mtids_dist.data import Batch
    from mtids_dist.train.engine import close_engine
    from mtids_dist.train.learner import Learner
    from mtids_dist.train.network import build_network

    found = {}
    for way, settings in WAYS.items():
        job = load_run(SHIPPED, ["train.scale.precision=fp32", "train.scale.zero_stage=0", *settings]).job()
        torch.manual_seed(SEED)
        counts = {name: np.full(task.num_classes, 5) for name, task in job.tasks.items()}
        learner = Learner(job, counts, build_network(job), batch_size=2, total_steps=100)
        labels = {name: torch.randint(0, task.num_classes, (2,)) for name, task in job.tasks.items()}
        batch = Batch(torch.randn(2, 1, 16, 16, 16), labels)
        learner.step(batch)
        learner.step(batch)
        with Counted() as seen:
            learner.step(batch)
        waits = sum(count for name, count in seen.by_name.items() if name.startswith(WAITS))
        found[way] = (seen.by_name.total(), waits)
        close_engine(learner.engine)
    return found


@pytest.mark.slow
def test_a_step_asks_little_and_hardly_waits() -> None:
    found = run_ranks(counted, 1)[0]
    print(f"seed {SEED}, operations and waits of a step: {found}")
    plain = found["plain"][0]
    assert plain <= 2000
    assert found["exact"][0] <= 2.4 * plain
    assert found["representation"][0] <= 1.15 * plain
    assert found["between"][0] <= 1.15 * plain
    assert all(waits <= 3 for _, waits in found.values())
