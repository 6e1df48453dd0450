"""Who is told of samples while work goes on, and what the verbs' displays share their lines with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mtids_dist.observe.gauges import Gauges, has_metrics_agent
from mtids_dist.observe.samples import Line, Sample, SearchSamples, crop_samples, training_samples
from mtids_dist.observe.trackers import Tracker, open_tracker

if TYPE_CHECKING:
    from mtids_dist.data import CropCounts

log = logging.getLogger(__name__)

OnLine = Callable[[Any], None]


class Observer(Protocol):
    """Takes samples; `step` is where the work stood, and falls when it goes on from a checkpoint."""

    def show(self, samples: Sequence[Sample], step: int, /) -> None:
        """Takes up what was measured at a step."""


class Observers:
    """Several as one, none of which can end the work: one that fails is told once and left out from then on."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)

    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Hands samples on."""
        self._observers = [observer for observer in self._observers if _shows(observer, samples, step)]


def _shows(observer: Observer, samples: Sequence[Sample], step: int) -> bool:
    """Whether the observer can be told more after this."""
    try:
        observer.show(samples, step)
    except Exception as error:
        log.warning("%s is told nothing more: %s", type(observer).__name__, error)
        return False
    return True


@contextmanager
def observers(
    folder: Path, *, on_cluster: bool, trackers: Sequence[Tracker] = (), settings: Mapping[str, Any] | None = None
) -> Iterator[Observers]:
    """Those that a verb's work in `folder` is shown to: Ray's gauges where a cluster's node exports them, and the trackers.

    :param settings: the resolved run description, for trackers that show it.
    :raises InputError: a tracker that is not installed.
    """
    with ExitStack() as stack:
        opened: list[Observer] = []
        for observer in _wanted(folder, on_cluster, trackers, settings or {}):
            opened.append(observer.__enter__())
            stack.push(partial(_leave, observer))
        yield Observers(opened)


def _wanted(
    folder: Path, on_cluster: bool, trackers: Sequence[Tracker], settings: Mapping[str, Any]
) -> Iterator[AbstractContextManager[Observer]]:
    for tracker in trackers:
        yield open_tracker(tracker, folder, settings)
    if on_cluster and has_metrics_agent():
        yield Gauges(folder.resolve().name)


def _leave(observer: AbstractContextManager[Observer], *error: Any) -> None:
    try:
        observer.__exit__(*error)
    except Exception as failure:
        log.warning("%s was not closed: %s", type(observer).__name__, failure)


def of_training(observers: Observers) -> OnLine:
    """A listener to the lines of metrics.jsonl."""

    def take(line: Line) -> None:
        if samples := training_samples(line):
            observers.show(samples, line["step"])

    return take


def of_search(observers: Observers) -> OnLine:
    """A listener to the lines of a search's history."""
    search = SearchSamples()

    def take(line: Line) -> None:
        observers.show(search(line), search.results)

    return take


def of_crops(observers: Observers) -> Callable[[CropCounts], None]:
    """A listener to how far a preparation has come."""

    def take(counts: CropCounts) -> None:
        samples = crop_samples(node_rows=counts.node_rows, prepared=counts.prepared, rejected=counts.rejected)
        observers.show(samples, counts.prepared + counts.rejected)

    return take


def each(*listeners: OnLine) -> OnLine:
    """One listener that is several."""

    def take(line: Any) -> None:
        for listener in listeners:
            listener(line)

    return take
