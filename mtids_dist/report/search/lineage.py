"""The population as a tree on a plane: generations along it, a lane for each member, an edge to what each result went on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from mtids_dist.report.search.expert_counts import changes, label_of
from mtids_dist.report.search.population import Population
from mtids_dist.report.search.records import Copy, Counts, Result


class Kind(Enum):
    """What a generation began with, and whether it was trained."""

    TRAINED = "trained on"
    SAME = "copy, same counts"
    GROWN = "copy, grown"
    SHRUNK = "copy, shrunk"
    BOTH = "copy, grown and shrunk"
    FAILED = "training failed"
    PENDING = "copy, not trained yet"


@dataclass(frozen=True)
class Dot:
    """One generation of one member.

    :param row: its line on the plane; a lane has several where a member fell back to earlier generations.
    :param label: what a reader can't take from the dot before it in this row: donor, counts.
    :param from_above: whether it is a copy whose donor lies above it.
    :param dropped: whether its member was lost after it.
    """

    generation: int
    member: int
    row: int
    kind: Kind
    label: str
    score: float | None = None
    ancestor: bool = False
    best: bool = False
    from_above: bool = False
    dropped: bool = False


@dataclass(frozen=True)
class Edge:
    """From what a generation went on from to it."""

    start: Dot
    end: Dot
    copied: bool
    ancestor: bool


@dataclass(frozen=True)
class Tree:
    """Dots and edges, and the rows of each member's lane, first and last."""

    dots: tuple[Dot, ...]
    edges: tuple[Edge, ...]
    lanes: Mapping[int, tuple[int, int]]

    @property
    def rows(self) -> int:
        """How many rows all lanes take."""
        return 1 + max((last for _, last in self.lanes.values()), default=-1)

    @property
    def generations(self) -> int:
        """The last generation that is on the plane."""
        return max((dot.generation for dot in self.dots), default=0)


def kind_of_copy(before: Counts | None, after: Counts | None) -> Kind:
    """Whether a copy has more experts somewhere, fewer, both, or the donor's."""
    changed = changes(before, after)
    grown, shrunk = any(change.grows for change in changed), any(change.shrinks for change in changed)
    if grown and shrunk:
        return Kind.BOTH
    return Kind.GROWN if grown else Kind.SHRUNK if shrunk else Kind.SAME


def kind_of(result: Result, population: Population) -> Kind:
    """What a result's generation began with."""
    if result.score is None:
        return Kind.FAILED
    donor = result.donor
    return Kind.TRAINED if donor is None else kind_of_copy(population.by_id[donor.id].counts, result.counts)


def lay_out(population: Population, *, finished: bool) -> Tree:
    """The tree of a population as far as it has come; what is decided and not trained is no part of a finished one."""
    rows, lanes = _rows(population)
    dots = _dots(population, rows)
    edges = [
        Edge(dots[result.start.id], dots[result.id], result.donor is not None, dots[result.id].ancestor)
        for result in population.results
        if result.start is not None
    ]
    pending = () if finished else population.pending
    waiting = [Edge(dots[copy.start.id], _pending(copy, lanes, dots), copied=True, ancestor=False) for copy in pending]
    return Tree((*dots.values(), *(edge.end for edge in waiting)), (*edges, *waiting), lanes)


def _pending(copy: Copy, lanes: Mapping[int, tuple[int, int]], dots: Mapping[str, Dot]) -> Dot:
    """Nothing is known of it but where it comes from."""
    donor, row = dots[copy.start.id], lanes[copy.member][1]
    return Dot(
        generation=copy.start.generation + 1,
        member=copy.member,
        row=row,
        kind=Kind.PENDING,
        label=f"←{donor.member}",
        from_above=donor.row < row,
    )


def _rows(population: Population) -> tuple[dict[str, int], dict[int, tuple[int, int]]]:
    """id -> row, and member -> its first and last row; a new row where a member trains a generation again."""
    rows: dict[str, int] = {}
    lanes: dict[int, tuple[int, int]] = {}
    row = -1
    for member in population.last:
        first, reached = row + 1, 0
        row += 1
        for result in (r for r in population.results if r.member == member):
            if result.generation <= reached:
                row += 1
            reached = result.generation
            rows[result.id] = row
        lanes[member] = (first, row)
    return rows, lanes


def _dots(population: Population, rows: Mapping[str, int]) -> dict[str, Dot]:
    ancestors = {result.id for result in population.ancestry}
    told: dict[int, str] = {}
    dots = {}
    for result in population.results:
        row, counts, donor = rows[result.id], label_of(result.counts), result.donor
        label = counts if counts != told.get(row) else ""
        told[row] = counts or told.get(row, "")
        dots[result.id] = Dot(
            generation=result.generation,
            member=result.member,
            row=row,
            kind=kind_of(result, population),
            label=label if donor is None else f"←{donor.member} {counts}".rstrip(),
            score=result.score,
            ancestor=result.id in ancestors,
            best=result is population.best,
            from_above=donor is not None and rows[donor.id] < row,
            dropped=result.member in population.dropped and result is population.last[result.member],
        )
    return dots
