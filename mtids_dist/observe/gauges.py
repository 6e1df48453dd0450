"""Samples as gauges of Ray's metrics agent, which Prometheus scrapes on every node."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from mtids_dist.observe.samples import Sample
from mtids_dist.observe.series import RUN, Series

if TYPE_CHECKING:
    from types import TracebackType

    from ray.util.metrics import Gauge

REFRESH_S = 1.0
"""Ray drops a gauge that was not set again within two of its report intervals, of which the shortest is a second."""

log = logging.getLogger(__name__)


class Gauges:
    """Shows the last sample of every series and set of labels while the block lasts; then they vanish.

    :param run: the run's name.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[Series, Gauge] = {}
        self._broken: set[Series] = set()
        self._last: dict[tuple[Series, tuple[str, ...]], float] = {}
        self._lock, self._over = Lock(), Event()
        self._keeper = Thread(target=self._keep, daemon=True, name="gauges")

    def __enter__(self) -> Gauges:
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._keeper.join()

    def show(self, samples: Sequence[Sample], _step: int, /) -> None:
        """Sets the gauges, and again every second until there are newer samples."""
        with self._lock:
            self._last |= {(sample.series, sample.labels): sample.value for sample in samples}
            self._set_all()

    def _keep(self) -> None:
        while not self._over.wait(REFRESH_S):
            with self._lock:
                self._set_all()

    def _set_all(self) -> None:
        for (series, labels), value in self._last.items():
            self._set(series, value, labels)

    def _set(self, series: Series, value: float, labels: tuple[str, ...]) -> None:
        """A metric that fails is told once, and is no reason to end a run."""
        if series in self._broken:
            return
        try:
            if series not in self._gauges:
                self._gauges[series] = _gauge(series)
            self._gauges[series].set(value, tags=dict(zip((RUN, *series.labels), (self._run, *labels), strict=True)))
        except Exception as error:
            self._broken.add(series)
            log.warning("%s is not exported any more: %s", series.exported, error)


def _gauge(series: Series) -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge(series.name, description=series.meaning, tag_keys=(RUN, *series.labels))


def has_metrics_agent() -> bool:
    """Whether the node of this process exports metrics."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return any(node.get("MetricsExportPort") for node in ray.nodes() if node["NodeID"] == here)
