"""Pictures of the training: loss, metrics, task weights, gradient cosines, throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mtids_dist.report.folder import Line, RunFolder
from mtids_dist.report.ink import FAINT, INK, PALETTE, Picture, colour_of, draw
from mtids_dist.report.series import Curve, curve, entry, smooth, thin

_MOST_PAIR_LINES = 6


def loss_pictures(run: RunFolder) -> list[Picture]:
    """One picture a task: training loss (raw and smoothed) and validation loss over steps."""
    return [p for task in run.tasks if (p := _loss(run, task))]


def _loss(run: RunFolder, task: str) -> Picture | None:
    train = curve(run.steps, entry("loss", task))
    held_out = curve(run.validations, entry("loss", task))
    if not len(train[0]) and not len(held_out[0]):
        return None

    def paint(axes: Axes) -> None:
        colour = colour_of(task, run.tasks)
        axes.plot(*thin(train), color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(*smooth(thin(train)), color=colour, label="train (moving mean)")
        axes.plot(*held_out, color=INK, marker="o", markersize=3, linestyle="--", linewidth=1, label="validation")
        _finish(axes, "cross-entropy (nats)")

    return draw(f"Loss: {task}", _last("validation loss", held_out), paint)


def metric_pictures(run: RunFolder) -> list[Picture]:
    """Validation AUC, balanced accuracy and accuracy over steps: one picture a metric, one line a task."""
    names = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy"}
    return [p for key, name in names.items() if (p := _metric(run, key, name))]


def _metric(run: RunFolder, key: str, name: str) -> Picture | None:
    of_task = {task: curve(run.validations, entry("metrics", task, key)) for task in run.tasks}
    fused = {task: curve(run.validations, entry("fused", task, key)) for task in run.tasks}
    if not any(len(x) for x, _ in of_task.values()):
        return None

    def paint(axes: Axes) -> None:
        for task in run.tasks:
            colour = colour_of(task, run.tasks)
            _plot_if_any(axes, of_task[task], color=colour, marker="o", markersize=3, label=task)
            _plot_if_any(axes, fused[task], color=colour, marker="s", markersize=3, linestyle=":", label=f"{task} (fused)")
        axes.set_ylim(top=1.0)
        _finish(axes, f"validation {name}")

    return draw(f"Validation {name}", "On the held-out fold, whole.", paint)


def weight_picture(run: RunFolder) -> Picture | None:
    """The balancer's weight of each task over steps."""
    of_task = {task: curve(run.steps, entry("weights", task)) for task in run.tasks}
    values = np.concatenate([y for _, y in of_task.values()]) if of_task else np.empty(0)
    if not len(values):
        return None

    def paint(axes: Axes) -> None:
        for task, points in of_task.items():
            colour = colour_of(task, run.tasks)
            axes.plot(*thin(points), color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(*smooth(thin(points)), color=colour, label=task)
        positive = values[values > 0]
        if len(positive) and positive.max() > 20 * positive.min():
            axes.set_yscale("log")
        _finish(axes, "task weight")

    return draw("Task weights", "What the balancer multiplies each task's gradient by; moving mean over the raw values.", paint)


def cosine_picture(run: RunFolder) -> Picture | None:
    """The cosine between the gradients of each pair of tasks over steps; a map where there are many pairs."""
    pairs = list(combinations(run.tasks, 2))
    of_pair = {f"{a} · {b}": curve(run.steps, partial(_cosine, a=a, b=b)) for a, b in pairs}
    of_pair = {pair: thin(points) for pair, points in of_pair.items() if len(points[0])}
    if not of_pair:
        return None
    caption = "Between the tasks' gradients on the shared parameters. Below 0 they pull against each other."
    if len(of_pair) > _MOST_PAIR_LINES:
        return draw("Gradient cosines", caption, lambda axes: _cosine_map(axes, of_pair), size=(6.6, 0.9 + 0.24 * len(of_pair)))
    return draw("Gradient cosines", caption, lambda axes: _cosine_lines(axes, of_pair))


def _cosine_lines(axes: Axes, of_pair: Mapping[str, Curve]) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    for i, (pair, points) in enumerate(of_pair.items()):
        # Pairs are no tasks: they take the palette from its other end.
        colour = PALETTE[-2 - i % (len(PALETTE) - 1)]
        axes.plot(*points, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(*smooth(points), color=colour, label=pair)
    axes.set_ylim(-1, 1)
    _finish(axes, "cosine")


def _cosine_map(axes: Axes, of_pair: Mapping[str, Curve]) -> None:
    for row, (x, y) in enumerate(of_pair.values()):
        bins_x, bins_y = thin((x, y), 60)
        width = (bins_x[-1] - bins_x[0]) / max(len(bins_x) - 1, 1) or 1.0
        for sign, colour in ((1, PALETTE[0]), (-1, PALETTE[1])):
            for step, value in zip(bins_x, sign * bins_y, strict=True):
                if value > 0:
                    axes.barh(row, width, left=step - width / 2, height=0.85, color=colour, alpha=min(value, 1.0), linewidth=0)
    axes.set_yticks(range(len(of_pair)), list(of_pair))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlabel("step (blue: agree, orange: conflict; full colour at 1)")


def speed_pictures(run: RunFolder) -> list[Picture]:
    """Samples a second and the share of time spent waiting for data, over steps."""
    speed = curve(run.steps, entry("samples_per_s"))
    waiting = curve(run.steps, entry("data_wait_share"))
    pictures = []
    if len(speed[0]):
        caption = f"All ranks together; median {np.median(speed[1]):.0f} samples/s."
        pictures.append(draw("Throughput", caption, lambda axes: _rate(axes, speed, "samples/s", PALETTE[2])))
    if len(waiting[0]):
        caption = f"Share of a step spent waiting for its batch; median {np.median(waiting[1]):.1%}."
        pictures.append(draw("Data wait", caption, lambda axes: _rate(axes, waiting, "share of time", PALETTE[1], share=True)))
    return pictures


def _rate(axes: Axes, points: Curve, label: str, colour: str, *, share: bool = False) -> None:
    axes.plot(*thin(points), color=colour, alpha=0.3, linewidth=0.8)
    axes.plot(*smooth(thin(points)), color=colour)
    axes.set_ylim(0, 1 if share else None)
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish(axes, label)


def _finish(axes: Axes, ylabel: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(colors=FAINT, labelcolor=INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _plot_if_any(axes: Axes, points: Curve, **style: Any) -> None:
    if len(points[0]):
        axes.plot(*points, **style)


def _cosine(line: Line, *, a: str, b: str) -> float | None:
    """Each line names the tasks of its matrix: a task without labels in a step is not among them."""
    tasks: Sequence[str] = line.get("tasks") or ()
    matrix = line.get("cosines")
    if not matrix or a not in tasks or b not in tasks:
        return None
    value: float | None = matrix[tasks.index(a)][tasks.index(b)]
    return value


def _last(what: str, points: Curve) -> str:
    return f"Last {what} {points[1][-1]:.3f} at step {points[0][-1]:.0f}." if len(points[0]) else "No validation yet."
