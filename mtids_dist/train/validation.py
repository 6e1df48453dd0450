"""Validation on whole folds: each rank takes its stripe of the rows, rank 0 puts them back together.

Legend: B rows of a batch, C classes of a task.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import cross_entropy

from mtids_dist.data import Batch
from mtids_dist.evaluate import GateSums, fuse, task_metrics
from mtids_dist.tasks import MISSING, Task
from mtids_dist.train.learner import Learner

Index = npt.NDArray[np.int64]
Part = tuple[Index, dict[str, Tensor], dict[str, Tensor]]
"""Of some rows: row numbers [B], logits [B, C] and labels [B] by task."""


@dataclass(frozen=True)
class Validation:
    """Losses, metrics and the gates' mean weights of a whole fold.

    `score` is the mean of the tasks' losses, each divided by log of its classes; `gates` is empty for a network without gates.
    """

    loss: Mapping[str, float | None]
    metrics: Mapping[str, dict[str, Any]]
    fused: Mapping[str, dict[str, Any]]
    gates: Mapping[str, dict[str, list[float]]]
    score: float


@torch.no_grad()
def validate(learner: Learner, batches: Iterable[tuple[Batch, Index]], *, rows: int, batch_size: int) -> Validation | None:
    """Loss and metrics over all `rows` of a fold, on rank 0 (None elsewhere); a collective.

    :param batches: this rank's stripe: (batch, row numbers [B]).

    Every rank takes the same number of forward passes, since under ZeRO-3 each of them is a collective too.
    """
    learner.model.eval()
    stripe = math.ceil(rows / dist.get_world_size())
    mine: list[Part] = []
    sums = GateSums()
    with learner.model.watched_gates() as gates:
        for batch, index in _exactly(batches, math.ceil(stripe / batch_size)):
            logits = {task: out.float() for task, out in learner.forward(batch.crops).items()}
            if index is not None:
                mine.append((index, logits, dict(batch.labels)))
                sums.add(gates)
    gathered: list[Any] = [None] * dist.get_world_size()
    on_cpu = [(index, {task: out.cpu() for task, out in logits.items()}, labels) for index, logits, labels in mine]
    dist.all_gather_object(gathered, (on_cpu, sums.on_cpu()))
    return _assess(learner.tasks, gathered) if dist.get_rank() == 0 else None


def _exactly(batches: Iterable[tuple[Batch, Index]], steps: int) -> Iterator[tuple[Batch, Index | None]]:
    """`steps` batches: where the stripe has fewer, its last batch again, marked None as not to be counted."""
    last: Batch | None = None
    given = 0
    for batch, index in islice(batches, steps):
        last, given = batch, given + 1
        yield batch, index
    for _ in range(steps - given):
        assert last is not None, "a fold has at least one row a rank"
        yield last, None


def _assess(tasks: Mapping[str, Task], ranks: Sequence[tuple[list[Part], GateSums]]) -> Validation:
    parts, gates = [part for mine, _ in ranks for part in mine], GateSums()
    for _, sums in ranks:
        gates.merge(sums)
    order = torch.from_numpy(np.concatenate([index for index, _, _ in parts]).argsort())
    logits = {task: torch.cat([part[task] for _, part, _ in parts])[order] for task in tasks}
    labels = {task: torch.cat([part[task] for _, _, part in parts])[order] for task in tasks}
    loss = {task: _mean_loss(logits[task], labels[task]) for task in tasks}
    probabilities = {task: out.softmax(dim=1) for task, out in logits.items()}
    fused = fuse(tasks, probabilities)
    known = [value / math.log(tasks[task].num_classes) for task, value in loss.items() if value is not None]
    return Validation(
        loss=loss,
        metrics={task: task_metrics(probabilities[task], labels[task]).to_json() for task in tasks},
        fused={task: task_metrics(p, labels[task]).to_json() for task, p in fused.items()},
        gates={task: means.to_json() for task, means in gates.means().items()},
        score=sum(known) / max(len(known), 1),
    )


def _mean_loss(logits: Tensor, labels: Tensor) -> float | None:
    return float(cross_entropy(logits, labels, ignore_index=MISSING)) if (labels != MISSING).any() else None
