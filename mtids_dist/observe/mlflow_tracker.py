"""MLflow: a run folder's samples and settings, in a SQLite file inside the folder unless MLFLOW_TRACKING_URI names a server."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtids_dist.errors import InputError, StoppedError
from mtids_dist.observe.samples import Sample
from mtids_dist.observe.trackers import tag

if TYPE_CHECKING:
    from types import TracebackType

EXPERIMENT = "mtids-dist"
DATABASE, ARTIFACTS, RUN_ID = "mlflow.db", "mlflow-artifacts", "mlflow-run-id"
FLUSH_S = 5.0
AT_ONCE = 1000
"""MLflow takes no more metrics in one call."""
PARAMETERS_AT_ONCE, LONGEST_PARAMETER = 100, 500


class MLflow:
    """One MLflow run a folder: work that goes on goes on in it, and steps that are taken again are there twice.

    Samples are sent every few seconds, so that a slow server delays nothing.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / DATABASE).absolute()}"
        self._client: Any = None
        self._run = ""
        self._waiting: list[Any] = []
        self._flushed_s = time.monotonic()

    def __enter__(self) -> MLflow:
        try:
            self._open()
        except Exception as error:  # a database's, a connection's or MLflow's own
            raise InputError(f"MLflow can't be written to: {error}", where=self._address) from error
        return self

    def _open(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=self._address)
        noted = self._folder / RUN_ID
        if noted.exists():
            self._run = noted.read_text().strip()
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._begin()
            noted.write_text(self._run + "\n")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._flush()
        self._client.set_terminated(self._run, _status(error))

    def show(self, samples: Sequence[Sample], step: int, /) -> None:
        """Notes metrics, and sends them when it is time."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._waiting += [Metric(tag(sample), sample.value, now_ms, step) for sample in samples]
        if time.monotonic() - self._flushed_s > FLUSH_S or len(self._waiting) >= AT_ONCE:
            self._flush()

    def _begin(self) -> str:
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment(), run_name=self._folder.resolve().name).info.run_id
        parameters = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in _leaves(self._settings)]
        for first in range(0, len(parameters), PARAMETERS_AT_ONCE):
            self._client.log_batch(run, params=parameters[first : first + PARAMETERS_AT_ONCE])
        return str(run)

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        ours = "MLFLOW_TRACKING_URI" not in os.environ
        place = str((self._folder / ARTIFACTS).absolute()) if ours else None
        return str(self._client.create_experiment(name, artifact_location=place))

    def _flush(self) -> None:
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:AT_ONCE])
            del self._waiting[:AT_ONCE]
        self._flushed_s = time.monotonic()


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, StoppedError | KeyboardInterrupt) else "FAILED"


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree
