"""Trackers that are off unless asked for: TensorBoard and MLflow, fed by the samples that the gauges show."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtids_dist.errors import InputError
from mtids_dist.observe.samples import Sample

if TYPE_CHECKING:
    from types import TracebackType

    from mtids_dist.observe.observers import Observer


class Tracker(str, Enum):
    """What can be asked for by `--track`."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"


PACKAGES = {Tracker.TENSORBOARD: ("tensorboardX",), Tracker.MLFLOW: ("mlflow", "sqlalchemy", "alembic")}


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Refuses what is not installed.

    :raises InputError: naming the extra.
    """
    for tracker in trackers:
        if any(find_spec(package) is None for package in PACKAGES[tracker]):
            raise InputError(
                f"{tracker.value} is not installed", where="--track", allowed=f"pip install 'mtids-dist[{tracker.value}]'"
            )


def open_tracker(tracker: Tracker, folder: Path, settings: Mapping[str, Any]) -> AbstractContextManager[Observer]:
    """The tracker of the work in `folder`, with the resolved run description as its settings."""
    check_trackers([tracker])
    if tracker is Tracker.TENSORBOARD:
        return TensorBoard(folder / "tensorboard")
    from mtids_dist.observe.mlflow_tracker import MLflow

    return MLflow(folder, settings)


def tag(sample: Sample) -> str:
    """What a sample is called in a tracker: `validation_loss/region`."""
    return "/".join((sample.series.short, *sample.labels))


class TensorBoard:
    """Event files; one begun anew where work goes on from a checkpoint, which voids the steps after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._step = 0

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def show(self, samples: Sequence[Sample], step: int, /) -> None:
        """Writes scalars."""
        if self._writer is None or step < self._step:
            self._open(step)
        self._step = step
        for sample in samples:
            self._writer.add_scalar(tag(sample), sample.value, step)

    def _open(self, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._close()
        # A file is named after the second in which it is begun: another one of that second must not take its place.
        self._writer = SummaryWriter(logdir=str(self._folder), purge_step=step, filename_suffix=f".{time.time_ns()}")

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
