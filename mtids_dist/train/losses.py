"""Per-task losses whose mean over ranks is the loss of the whole global batch, whatever labels are missing where.

Legend: B batch of this rank, C classes of a task, K tasks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mtids_dist.tasks import MISSING, Task
from mtids_dist.train.config import Imbalance, LossConfig

Counts = Mapping[str, npt.NDArray[np.int64]]


class TaskLosses(nn.Module):
    """Cross-entropy per task, summed over this rank's labels and divided by what the global batch holds of them.

    :param tasks: the tasks, in the order of all K-vectors.
    :param counts: {task: labels per class [C] in the training folds}, for class weights and priors. A class that has none there
        counts as one, so that nothing becomes infinite.
    """

    def __init__(self, tasks: Mapping[str, Task], counts: Counts, config: LossConfig) -> None:
        super().__init__()
        self._tasks = tasks
        self._smoothing = config.label_smoothing
        for index, task in enumerate(tasks):
            frequency = torch.from_numpy(counts[task]).double().clamp(min=1) / max(int(counts[task].sum()), 1)
            self.register_buffer(f"_weight_{index}", _class_weights(frequency, config).float())
            self.register_buffer(f"_adjustment_{index}", _adjustment(frequency, config).float())

    def label_mass(self, labels: Mapping[str, Tensor]) -> Tensor:
        """What this rank's labels weigh per task [K]: their number, without class weights. Sum it over ranks before `forward`."""
        masses = []
        for index, task in enumerate(self._tasks):
            weight = nn.functional.pad(self._buffer("weight", index), (0, 1))
            masses.append(weight[labels[task]].sum())  # a missing label, -1, takes the 0 at the end
        return torch.stack(masses)

    def forward(
        self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], global_mass: Tensor, shares: int
    ) -> dict[str, Tensor]:
        """{task: scalar}: these rows' sum of losses x shares / `global_mass` [K]; 0, hanging on the graph, without labels.

        :param shares: into how many parts the global batch is cut, over ranks and micro-batches.
        """
        losses = {}
        for index, (name, task) in enumerate(self._tasks.items()):
            total = cross_entropy(
                logits[name].float() + self._buffer("adjustment", index),
                labels[name],
                weight=self._buffer("weight", index),
                ignore_index=MISSING,
                reduction="sum",
                label_smoothing=self._smoothing,
            )
            losses[name] = total * (task.loss_weight * shares / global_mass[index].clamp(min=1e-12))
        return losses

    def _buffer(self, kind: str, index: int) -> Tensor:
        buffer: Tensor = getattr(self, f"_{kind}_{index}")
        return buffer


def absent_classes(tasks: Mapping[str, Task], counts: Counts) -> dict[str, list[str]]:
    """{task: class names without a label in the training folds}, only tasks that have such classes."""
    absent = {name: [c for c, n in zip(task.class_names, counts[name], strict=True) if n == 0] for name, task in tasks.items()}
    return {name: classes for name, classes in absent.items() if classes}


def _class_weights(frequency: Tensor, config: LossConfig) -> Tensor:
    """Weights [C] proportional to frequency^-strength, whose mean over the training labels is 1."""
    if config.imbalance is not Imbalance.CLASS_WEIGHTS:
        return torch.ones_like(frequency)
    weights = frequency.pow(-config.strength)
    return weights / (weights * frequency).sum() * frequency.sum()


def _adjustment(frequency: Tensor, config: LossConfig) -> Tensor:
    """strength x log prior [C], added to logits while training."""
    if config.imbalance is not Imbalance.LOGIT_ADJUSTMENT:
        return torch.zeros_like(frequency)
    return config.strength * frequency.log()
