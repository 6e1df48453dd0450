"""What the model is fed: normalised crops with the class indices of every task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from mtids_dist.tasks import Task

LOW = -1.0
"""What the window's lower end, and so the outside of a crop, is after normalisation."""


@dataclass(frozen=True)
class Batch:
    """Crops float32 [B, 1, D, H, W] in [-1, 1] before augmentation, and per task class indices int64 [B] (-1: missing)."""

    crops: torch.Tensor
    labels: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.crops)

    def pinned(self) -> Batch:
        """The same in page-locked memory, from which a GPU fetches while everything else goes on."""
        return Batch(self.crops.pin_memory(), {task: label.pin_memory() for task, label in self.labels.items()})

    def cut(self, parts: int) -> list[Batch]:
        """As many batches, whose rows are this one's in order."""
        crops = self.crops.tensor_split(parts)
        labels = {task: label.tensor_split(parts) for task, label in self.labels.items()}
        return [Batch(each, {task: of_task[place] for task, of_task in labels.items()}) for place, each in enumerate(crops)]


def normalise(crops: npt.NDArray[np.int16], window: tuple[float, float]) -> torch.Tensor:
    """Crops [B, D, H, W] to float32 [B, 1, D, H, W]: `window` maps to [-1, 1], values outside are clipped."""
    low, high = window
    values = np.clip(crops, low, high, dtype=np.float32)
    values -= (low + high) / 2
    values *= 2 / (high - low)
    return torch.from_numpy(values).unsqueeze(1)


def columns_of(tasks: Mapping[str, Task]) -> list[str]:
    """The label columns that the tasks read, each once."""
    return list(dict.fromkeys(column for task in tasks.values() for column in task.column))


def encode_labels(rows: pa.RecordBatch | pa.Table, tasks: Mapping[str, Task]) -> npt.NDArray[np.int64]:
    """Class indices [rows, tasks] of a record batch or table, tasks in the mapping's order; -1 where the label is missing."""
    columns = {name: rows.column(name).to_pylist() for name in columns_of(tasks)}
    return np.stack([task.encode(columns) for task in tasks.values()], axis=1)


def make_batch(
    crops: npt.NDArray[np.int16], labels: npt.NDArray[np.int64], tasks: Mapping[str, Task], window: tuple[float, float]
) -> Batch:
    """A batch of crops [B, D, H, W] and class indices [B, tasks]."""
    by_task = torch.from_numpy(np.ascontiguousarray(labels.T))
    return Batch(normalise(crops, window), dict(zip(tasks, by_task, strict=True)))
