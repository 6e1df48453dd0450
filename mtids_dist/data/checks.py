"""What is refused before training starts: a store that does not fit the tasks, the settings or the number of workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from mtids_dist.data.batch import encode_labels
from mtids_dist.data.config import DataConfig
from mtids_dist.data.manifest import MANIFEST
from mtids_dist.data.store import Split, Store
from mtids_dist.errors import InputError
from mtids_dist.tasks import MISSING, Task


def check_store(store: Store, config: DataConfig, tasks: Mapping[str, Task], *, world_size: int = 1) -> None:
    """InputError unless the store has the wanted crop size, every task's columns and labels to train on, and enough rows."""
    wanted = config.crop_shape
    if wanted is not None and wanted != store.crop_shape:
        raise InputError(
            "the store has another crop size than data.crop asks for",
            where=f"{store.path / MANIFEST} crop_shape",
            found=_size(store.crop_shape),
            allowed=_size(wanted),
        )
    folds = store.folds_of(Split.TRAIN, config.fold)
    for task, counts in label_counts(store, folds, tasks).items():
        if not counts.any():
            columns = ", ".join(tasks[task].column)
            raise InputError(
                f"no training row of folds {_listed(folds)} has a label of task {task}", where=f"{store.path} {columns}"
            )
    steps_per_epoch(store.count(folds), world_size, config.batch_size)


def refuse_missing_columns(store: Store, tasks: Mapping[str, Task]) -> None:
    """InputError naming the nearest label column where a task reads one that the store does not have."""
    labels = store.manifest.label_columns
    for name, task in tasks.items():
        for column in task.column:
            if column not in labels:
                near = get_close_matches(column, labels, n=1)
                what = "no such label column in the store" + (f", did you mean {near[0]}?" if near else "")
                raise InputError(what, where=f"{store.path} tasks.{name}.column", found=column, allowed=", ".join(labels))


def label_counts(store: Store, folds: Iterable[int], tasks: Mapping[str, Task]) -> dict[str, npt.NDArray[np.int64]]:
    """Rows of each class, int64 [classes] per task, missing labels left out; InputError where a column is not in the store."""
    refuse_missing_columns(store, tasks)
    encoded = encode_labels(store.labels(folds), tasks)
    return {
        name: np.bincount(labels[labels != MISSING], minlength=task.num_classes)
        for (name, task), labels in zip(tasks.items(), encoded.T, strict=True)
    }


def steps_per_epoch(rows: int, world_size: int, batch_size: int) -> int:
    """Full batches that every rank can take from its even share of `rows`; InputError where that is none."""
    if world_size * batch_size > rows:
        raise InputError(
            f"{world_size} workers x {batch_size} crops a batch need more rows than the training folds hold",
            where="data.batch_size",
            found=batch_size,
            allowed=f"up to {rows // world_size} for {rows} rows on {world_size} workers"
            if rows >= world_size
            else "fewer workers",
        )
    return rows // world_size // batch_size


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _listed(folds: Iterable[int]) -> str:
    return ", ".join(map(str, folds))
