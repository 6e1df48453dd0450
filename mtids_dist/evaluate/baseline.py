"""What size alone tells: the baseline that every network has to beat before its numbers mean anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from mtids_dist.tasks import MISSING, Task

SIZE = "short_axis_mm"


@dataclass(frozen=True)
class SizeBaseline:
    """Predictions from size alone for N evaluated rows, fit on the training folds."""

    probabilities: Mapping[str, npt.NDArray[np.float64]]
    """[N, C] by task; a task that could not be fit is in `unfit` instead"""
    unfit: Mapping[str, str]
    """task -> why there is no baseline for it"""
    missing_train: int
    """training rows without a size: they take the training rows' median and are marked by a feature of their own"""
    missing_evaluated: int
    """evaluated rows without a size, treated likewise"""


def size_baseline(train: pa.Table, evaluated: pa.Table, tasks: Mapping[str, Task]) -> SizeBaseline:
    """Fit a logistic regression (multinomial for several classes) on log short axis and its square, task by task.

    The tables are `Store.labels` of the training folds and of the evaluated ones.
    """
    sizes, sizes_evaluated = log_sizes(train), log_sizes(evaluated)
    probabilities: dict[str, npt.NDArray[np.float64]] = {}
    unfit: dict[str, str] = {}
    for name, task in tasks.items():
        labels = encode(task, train)
        known = labels != MISSING
        if reason := _unfit_reason(sizes[known], labels[known]):
            unfit[name] = reason
        else:
            model = _pipeline().fit(sizes[known], labels[known])
            probabilities[name] = _probabilities(model, sizes_evaluated, task.num_classes)
    return SizeBaseline(probabilities, unfit, int(np.isnan(sizes).sum()), int(np.isnan(sizes_evaluated).sum()))


def encode(task: Task, table: pa.Table) -> npt.NDArray[np.int64]:
    """The task's labels [rows] of a table with its label columns."""
    return task.encode({column: table.column(column).to_pylist() for column in task.column})


def log_sizes(table: pa.Table) -> npt.NDArray[np.float64]:
    """log of the short axis in mm, [rows, 1]; NaN where it is unknown or not positive (public tables hold zeros)."""
    sizes = np.array([np.nan if s is None or s <= 0 else s for s in table.column(SIZE).to_pylist()], np.float64)
    return np.log(sizes)[:, None]


def _unfit_reason(sizes: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> str:
    if len(np.unique(labels)) < 2:
        return "the training folds hold fewer than two classes"
    return "no labelled training row has a size" if np.isnan(sizes).all() else ""


def _pipeline() -> Pipeline:
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )


def _probabilities(model: Pipeline, sizes: npt.NDArray[np.float64], num_classes: int) -> npt.NDArray[np.float64]:
    scattered = np.zeros((len(sizes), num_classes))  # a class without a training row keeps probability 0
    if len(sizes):
        scattered[:, model.classes_] = model.predict_proba(sizes)
    return scattered
