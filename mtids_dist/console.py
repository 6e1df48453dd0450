"""What a person sees while work goes on: bars and tables on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

PLAIN_EVERY_S = 5.0


class Report(Protocol):
    """Called as `report(done, total, text)`."""

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` units of the stage `text` are done."""


def say(text: str) -> None:
    """One line to the user."""
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """A bar a stage; where there is no terminal a line every few seconds and one at each stage's end."""
    if not console.is_terminal:
        yield _PlainProgress(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        stages: dict[str, Any] = {}

        def report(done: int, total: int, text: str = "") -> None:
            if text not in stages:
                stages[text] = bars.add_task(f"{title}: {text}" if text else title, total=None)
            bars.update(stages[text], completed=done, total=total or None)

        yield report


class _PlainProgress:
    def __init__(self, title: str) -> None:
        self._title, self._last = title, time.monotonic()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if done == total or now - self._last > PLAIN_EVERY_S:
            self._last = now
            say(f"{self._title}{': ' + text if text else ''} {done}/{total}")


class TrainingDisplay:
    """Follows a run's metrics.jsonl: a bar and a table of the tasks on a terminal, a line a validation otherwise."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._bars = Progress(
            TextColumn("training"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn(), TimeRemainingColumn(),
            console=console,
        )  # fmt: skip
        self._bar = self._bars.add_task("training", total=None, text="starting workers")
        self._step: dict[str, Any] = {}
        self._validation: dict[str, Any] = {}
        self._steps_in_all = 0
        self._epochs = 0

    def __enter__(self) -> TrainingDisplay:
        if console.is_terminal:
            self._live = Live(self._bars, console=console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def __call__(self, line: dict[str, Any]) -> None:
        """Takes up one line."""
        if line["kind"] == "event":
            self._event(line)
        elif line["kind"] == "validation":
            self._validation = line
            if self._live is None:
                say(_validation_text(line, self._epochs, self._step))
        else:
            self._step = line
        if self._live is not None:
            text = (
                f"step {self._step.get('step', 0)}/{self._steps_in_all or '?'}, {self._step.get('samples_per_s', 0):.0f} crops/s"
            )
            self._bars.update(self._bar, completed=self._step.get("step", 0), total=self._steps_in_all or None, text=text)
            self._live.update(self._table())

    def _event(self, line: dict[str, Any]) -> None:
        if line["event"] in ("started", "resumed"):
            self._epochs = line["epochs"]
            self._steps_in_all = line["epochs"] * line["steps_per_epoch"]
            say(f"{line['event']} at step {line['step']} of {self._steps_in_all} on {line['workers']} worker(s)")
            for task, classes in line["absent_classes"].items():
                say(f"{task}: no label in the training folds for {', '.join(classes)}; these classes can't be learned")
        elif line["event"] == "initialised":
            say(line["report"])
        elif line["event"] == "worker lost":
            say(f"a worker was lost, going on from the last checkpoint ({line['error']})")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(self._bars)
        tasks = Table("task", "loss", "weight", "validation loss", "balanced accuracy", "AUC", box=None, padding=(0, 2))
        for task in self._step.get("tasks", []):
            metrics = self._validation.get("metrics", {}).get(task, {})
            row = (self._step["loss"][task], self._step["weights"][task], self._validation.get("loss", {}).get(task))
            tasks.add_row(task, *(_number(v) for v in (*row, metrics.get("balanced_accuracy"), metrics.get("auc"))))
        table.add_row(tasks)
        return table


def _validation_text(line: dict[str, Any], epochs: int, step: dict[str, Any]) -> str:
    tasks = "; ".join(
        f"{task} loss {_number(loss)} balanced accuracy {_number(line['metrics'][task]['balanced_accuracy'])}"
        f" AUC {_number(line['metrics'][task]['auc'])}"
        for task, loss in line["loss"].items()
    )
    speed = f" | {step['samples_per_s']:.0f} crops/s" if step else ""
    return f"epoch {line['epoch']}/{epochs} validation: {tasks}{speed}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def evaluation_table(document: Mapping[str, Any]) -> str:
    """The contents of an evaluation.json as a table: each task beside what size alone can tell, then the fused tasks."""
    table = Table("task", "n", "accuracy", "balanced accuracy", "AUC (95 % interval)", "size alone", box=None, padding=(0, 2))
    size_only = document["baselines"]["size_only"]
    for task, found in document["tasks"].items():
        table.add_row(task, *_metric_cells(found), _number(size_only.get(task, {}).get("auc")))
    for task, found in document["fused"].items():
        table.add_row(f"{task}, fused", *_metric_cells(found), "")
    mean = document["mean_auc"]
    table.add_row("mean AUC", "", "", "", _number(mean["network"]), _number(mean["size_only"]))
    plain = Console(width=120, no_color=True)
    with plain.capture() as capture:
        plain.print(f"{document['split']} split: {document['rows']} rows of {document['patients']} patients", markup=False)
        plain.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _metric_cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    interval = found["ci95"].get("auc")
    between = f" ({_number(interval[0])} to {_number(interval[1])})" if interval else ""
    return str(found["n"]), _number(found["accuracy"]), _number(found["balanced_accuracy"]), _number(found["auc"]) + between
