"""The headline table: each task's numbers, with how sure they are and what size alone reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtids_dist.report.folder import RunFolder

NONE = "–"  # noqa: RUF001 - a dash in a table cell


@dataclass(frozen=True)
class Row:
    """One line of the headline table, as text."""

    name: str
    n: str
    accuracy: str
    balanced_accuracy: str
    auc: str
    size_only: str
    above: str
    task: str
    """whose colour the line has; empty for a summary"""


def headline(run: RunFolder) -> list[Row]:
    """A line for each task, each fused task, and the mean; from the last validation where there is no evaluation yet."""
    if run.evaluation is None:
        return _from_validation(run)
    evaluation = run.evaluation
    rows = [_row(task, task, entry) for task, entry in evaluation["tasks"].items()]
    rows += [_row(f"{task}, fused", task, entry) for task, entry in evaluation.get("fused", {}).items()]
    means = evaluation.get("mean_auc", {})
    auc, size = means.get("network"), means.get("size_only")
    above = None if auc is None or size is None else auc - size
    return [*rows, Row("mean of the tasks", "", "", "", _number(auc), _number(size), _number(above, signed=True), "")]


def _from_validation(run: RunFolder) -> list[Row]:
    if not run.validations:
        return []
    last = run.validations[-1]
    rows = [_row(task, task, entry) for task, entry in last.get("metrics", {}).items()]
    return rows + [_row(f"{task}, fused", task, entry) for task, entry in last.get("fused", {}).items()]


def _row(name: str, task: str, entry: Mapping[str, Any]) -> Row:
    def cell(metric: str) -> str:
        return _number(entry.get(metric)) + _interval((entry.get("ci95") or {}).get(metric))

    return Row(
        name=name,
        n=str(entry.get("n", NONE)),
        accuracy=cell("accuracy"),
        balanced_accuracy=cell("balanced_accuracy"),
        auc=cell("auc"),
        size_only=_number(entry.get("size_only_auc")),
        above=_number(entry.get("auc_above_size"), signed=True) + _interval(entry.get("auc_above_size_ci95"), signed=True),
        task=task,
    )


def _number(value: float | None, *, signed: bool = False) -> str:
    return NONE if value is None else f"{value:+.3f}" if signed else f"{value:.3f}"


def _interval(bounds: tuple[float, float] | None, *, signed: bool = False) -> str:
    return "" if bounds is None else " [{}, {}]".format(*(f"{b:+.2f}" if signed else f"{b:.2f}" for b in bounds))
