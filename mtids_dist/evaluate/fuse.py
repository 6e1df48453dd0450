"""One prediction out of several heads: a task whose label is a product of columns, fused with the tasks of its columns.

log p_joint + log p_region + log p_metastasis, renormalised, for MT-IDS's three tasks (our reading of the abstract).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from mtids_dist.tasks import Task

_SMALLEST = np.finfo(np.float32).tiny
"""A float32 softmax may underflow to 0; its logarithm must stay finite for the other heads to have a say."""


def product_parts(tasks: Mapping[str, Task]) -> dict[str, tuple[str, ...]]:
    """For each task that can be fused: the single-column tasks of its columns, in the order of the columns.

    A column's task must have the same classes; a product with a column that has no such task is left out.
    """
    parts = {name: tuple(_column_task(tasks, task, i) for i in range(len(task.column))) for name, task in tasks.items()}
    return {
        name: tuple(p for p in of_task if p) for name, of_task in parts.items() if len(tasks[name].column) > 1 and all(of_task)
    }


def _column_task(tasks: Mapping[str, Task], product: Task, index: int) -> str | None:
    column = slice(index, index + 1)
    wanted = product.column[column], product.value_maps[column], product.column_classes[column]
    return next((name for name, t in tasks.items() if (t.column, t.value_maps, t.column_classes) == wanted), None)


def fuse(tasks: Mapping[str, Task], probabilities: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[np.float64]]:
    """Fused probabilities [N, C] of every task that `product_parts` names, from the heads' own [N, classes]."""
    logs = {name: np.log(np.maximum(np.asarray(p, np.float64), _SMALLEST)) for name, p in probabilities.items()}
    return {name: _fuse_one(logs[name], [logs[p] for p in parts]) for name, parts in product_parts(tasks).items()}


def _fuse_one(product: npt.NDArray[np.float64], parts: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    rows = len(product)
    total = product.reshape(rows, *(part.shape[1] for part in parts))
    for axis, part in enumerate(parts):
        total = total + part.reshape(rows, *(-1 if i == axis else 1 for i in range(len(parts))))
    fused: npt.NDArray[np.float64] = np.exp(log_softmax(total.reshape(product.shape), axis=1))
    return fused
