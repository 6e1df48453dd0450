"""A training run as it goes on."""

from __future__ import annotations

from typing import Any

from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mtids_dist.console.terminal import console, number, say


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
            tasks.add_row(task, *(number(v) for v in (*row, metrics.get("balanced_accuracy"), metrics.get("auc"))))
        table.add_row(tasks)
        return table


def _validation_text(line: dict[str, Any], epochs: int, step: dict[str, Any]) -> str:
    tasks = "; ".join(
        f"{task} loss {number(loss)} balanced accuracy {number(line['metrics'][task]['balanced_accuracy'])}"
        f" AUC {number(line['metrics'][task]['auc'])}"
        for task, loss in line["loss"].items()
    )
    speed = f" | {step['samples_per_s']:.0f} crops/s" if step else ""
    return f"epoch {line['epoch']}/{epochs} validation: {tasks}{speed}"
