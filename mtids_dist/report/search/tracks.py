"""A number of every generation, followed along what was copied: loss and settings of a population over generations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mtids_dist.report.search.lineage import Kind, kind_of
from mtids_dist.report.search.population import Population
from mtids_dist.report.search.records import Result

NAN = math.nan


@dataclass(frozen=True)
class Track:
    """One generation of one member.

    :param start: the generation that it went on from, 0 if none.
    :param before: the number of what it went on from; the donor's, of a copy.
    :param after: the number that it began with; other than `before` where a copy changed it.
    :param value: the number at its end. Not a number where it is not known.
    """

    result: Result
    kind: Kind
    start: int
    before: float
    after: float
    value: float
    ancestor: bool


Measure = Callable[[Result, Result | None], tuple[float | None, float | None, float | None]]
"""Of a result and what it went on from: before, after, value."""


def tracks_of(population: Population, measure: Measure) -> list[Track]:
    """One track for every result, in order."""
    ancestors = {result.id for result in population.ancestry}
    tracks = []
    for result in population.results:
        origin = None if result.start is None else population.by_id[result.start.id]
        before, after, value = (NAN if number is None else number for number in measure(result, origin))
        start = 0 if origin is None else origin.generation
        tracks.append(Track(result, kind_of(result, population), start, before, after, value, result.id in ancestors))
    return tracks


def loss(result: Result, origin: Result | None) -> tuple[float | None, float | None, float | None]:
    """Validation loss: a copy's was measured once more after its resize."""
    before = None if origin is None else origin.score
    return before, before if result.donor is None else result.loss_after, result.score
