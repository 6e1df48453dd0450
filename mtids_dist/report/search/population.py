"""The members of a search and what became of them: results in order, who went on from whom, who is out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mtids_dist.report.search.records import Begun, Copy, End, Result


@dataclass(frozen=True)
class Population:
    """What the history says of members.

    :param begun: member -> what it was to begin with; with halving not all of them begin.
    :param story: results and decisions to copy, in order.
    :param ends: members that train no more.
    """

    begun: Mapping[int, Begun]
    story: tuple[Result | Copy, ...]
    ends: tuple[End, ...]

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """Every generation that was trained or failed, in order."""
        return tuple(record for record in self.story if isinstance(record, Result))

    @cached_property
    def by_id(self) -> Mapping[str, Result]:
        """id -> result."""
        return {result.id: result for result in self.results}

    @cached_property
    def best(self) -> Result | None:
        """The result with the lowest validation loss; the earliest of equals."""
        scored = [result for result in self.results if result.score is not None]
        return min(scored, key=lambda result: result.score or 0.0, default=None)

    @cached_property
    def ancestry(self) -> tuple[Result, ...]:
        """The results that led to the best one, the first generation first, itself last; empty where there is none."""
        found = [] if self.best is None else [self.best]
        while found and (start := found[-1].start) is not None:
            found.append(self.by_id[start.id])
        return tuple(reversed(found))

    @cached_property
    def last(self) -> Mapping[int, Result]:
        """Member -> its last result, in order of members; those without any are not in it."""
        return {result.member: result for result in sorted(self.results, key=lambda result: result.member)}

    @cached_property
    def dropped(self) -> Mapping[int, End]:
        """Member -> how it was lost."""
        return {end.member: end for end in self.ends if end.event == "dropped"}

    @cached_property
    def stopped(self) -> Mapping[int, End]:
        """Member -> where the scheduler ended it."""
        return {end.member: end for end in self.ends if end.event == "stopped"}

    @property
    def pending(self) -> tuple[Copy, ...]:
        """Copies that were decided and have not trained since."""
        newest = {record.member: record for record in self.story}
        return tuple(r for r in newest.values() if isinstance(r, Copy) and r.member in self.last and r.member not in self.dropped)

    @cached_property
    def failures(self) -> tuple[str, ...]:
        """One sentence each: generations whose training failed, and members that were dropped."""
        failed = [
            f"Member {r.member} failed in generation {r.generation}: {r.error or 'its loss was not finite'}"
            for r in self.results
            if r.score is None
        ]
        gone = [f"Member {e.member} was dropped {_when(e)}: {e.error or 'no reason was noted'}" for e in self.dropped.values()]
        return (*failed, *gone)


def _when(end: End) -> str:
    return f"after generation {end.generation}" if end.generation else "before its first generation"
