"""Pictures of the evaluation: confusion matrices, ROC curves, and which experts each task uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import roc_curve

from mtids_dist.report.folder import RunFolder
from mtids_dist.report.ink import FAINT, INK, PALETTE, Picture, colour_of, draw
from mtids_dist.tasks import MISSING

_MOST_CLASSES = 16
"""A confusion matrix with more classes can't be read; a product of tasks is seen better in its parts."""

_ROOM_FOR_NAME = 0.09
"""The share of a bar that an expert's name needs; twice as much with its number."""


def confusion_pictures(run: RunFolder) -> list[Picture]:
    """Row-normalised confusion matrices, the tasks with most classes first."""
    entries = (run.evaluation or {}).get("tasks", {})
    shown = [task for task, entry in entries.items() if 0 < len(entry.get("classes", ())) <= _MOST_CLASSES]
    return [_confusion(task, entries[task]) for task in sorted(shown, key=lambda t: -len(entries[t]["classes"]))]


def _confusion(task: str, entry: Mapping[str, Any]) -> Picture:
    counts, classes = np.array(entry["confusion"], np.int64), entry["classes"]
    side = 1.7 + 0.42 * max(len(classes), 2)
    absent = [name for name, total in zip(classes, counts.sum(1), strict=True) if not total]
    caption = "Numbers are nodes; the colour is their share of the row (the true class)."
    if absent:
        caption += f" Not among these nodes: {', '.join(absent)}."
    wide = len(classes) > 4
    return draw(f"Confusion: {task}", caption, lambda axes: _matrix(axes, counts, classes), size=(side + 0.3, side), wide=wide)


def _matrix(axes: Axes, counts: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(counts):
        share = float(shares[row, column])
        axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=PALETTE[0], alpha=share, linewidth=0))
        if count:
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color="white" if share > 0.7 else INK)
    axes.set_xlim(-0.5, len(classes) - 0.5)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.tick_params(colors=FAINT, labelcolor=INK, length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")


def roc_pictures(run: RunFolder) -> list[Picture]:
    """One picture for each task of two classes that has both: the network's ROC curve, and that of size alone."""
    if run.evaluation is None or run.predictions is None:
        return []
    entries = run.evaluation["tasks"]
    binary = [task for task, entry in entries.items() if len(entry.get("classes", ())) == 2 and entry.get("auc") is not None]
    return [_roc(run, task, entries[task]) for task in binary if f"{task}_label" in run.predictions.column_names]


def _roc(run: RunFolder, task: str, entry: Mapping[str, Any]) -> Picture:
    assert run.predictions is not None
    labels = run.predictions.column(f"{task}_label").to_numpy()
    known = labels != MISSING
    lines = [
        (f"network, AUC {entry['auc']:.3f}", _scores(run.predictions, f"{task}_probabilities"), colour_of(task, run.tasks), "-")
    ]
    size = f"{task}_size_only_probabilities"
    if size in run.predictions.column_names and entry.get("size_only_auc") is not None:
        lines.append((f"size alone, AUC {entry['size_only_auc']:.3f}", _scores(run.predictions, size), INK, "--"))

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        for name, scores, colour, dashes in lines:
            false_positive, true_positive, _ = roc_curve(labels[known] == 1, scores[known])
            axes.plot(false_positive, true_positive, color=colour, linestyle=dashes, label=name)
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
        axes.set_aspect("equal")
        axes.tick_params(colors=FAINT, labelcolor=INK)
        axes.legend(loc="lower right")

    caption = f"{int(known.sum())} nodes, {int((labels[known] == 1).sum())} of class {entry['classes'][1]}."
    return draw(f"ROC: {task}", caption, paint, size=(3.9, 3.6))


def _scores(predictions: pa.Table, column: str) -> npt.NDArray[np.float64]:
    return np.array([p[1] for p in predictions.column(column).to_pylist()], np.float64)


def gate_picture(run: RunFolder) -> Picture | None:
    """How each task's gates share its features out among shared and private experts, as stacked bars."""
    gates = (run.evaluation or {}).get("gates") or {}
    if not gates:
        return None
    caption = (
        "Mean over the evaluated nodes of branch weight times expert weight. "
        "Blue S: experts that all tasks share; orange P: the task's own."
    )
    return draw("Gate use", caption, lambda axes: _bars(axes, gates), size=(3.9, max(2.6, 0.8 + 0.4 * len(gates))))


def _bars(axes: Axes, gates: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    for row, gate in enumerate(gates.values()):
        left = 0.0
        for name, colour, alpha, use in _experts(gate):
            axes.barh(row, use, left=left, height=0.72, color=colour, alpha=alpha, edgecolor="none")
            if use > _ROOM_FOR_NAME:
                text = f"{name} {use:.0%}" if use > 2 * _ROOM_FOR_NAME else name
                axes.text(left + use / 2, row, text, ha="center", va="center", fontsize=8, color="white")
            left += use
    axes.set_yticks(range(len(gates)), list(gates))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the task's features")
    axes.grid(visible=False)
    axes.tick_params(colors=FAINT, labelcolor=INK)


def _experts(gate: Mapping[str, Sequence[float]]) -> list[tuple[str, str, float, float]]:
    """(name, colour, opacity, use) of every expert: one hue a branch, neighbours told apart by their shade."""
    shared = len(gate["shared"])
    return [
        (f"S{i + 1}", PALETTE[0], 1.0 - 0.25 * (i % 2), use)
        if i < shared
        else (f"P{i - shared + 1}", PALETTE[1], 1.0 - 0.25 * ((i - shared) % 2), use)
        for i, use in enumerate(gate["use"])
    ]
