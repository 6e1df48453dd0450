"""A search in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mtids_dist.report.folder import Line, RunFolder
from mtids_dist.report.search.expert_counts import is_count
from mtids_dist.report.search.population import Population
from mtids_dist.report.search.records import LineageEvent, Plan


@dataclass(frozen=True)
class Search:
    """One search's files in memory. What is not there (yet) is empty or None, and named in `missing` if it should be."""

    path: Path
    plan: Plan
    population: Population
    lineage: tuple[LineageEvent, ...]
    events: tuple[Line, ...]
    """started, resumed, finished"""
    seed: Any
    winner: RunFolder | None
    """the best member's run folder, once it has been evaluated"""
    exported: bool
    """whether the best member lies in best/"""
    description: str
    """run.yaml as text"""
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    """one sentence each"""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def finished(self) -> bool:
        """Whether the budget was spent and the winner written."""
        return any(event["event"] == "finished" for event in self.events)

    @cached_property
    def pauses_s(self) -> tuple[float, ...]:
        """Seconds between generations in which nobody trained; empty where they are not known."""
        told = [event.get("pauses_s") for event in self.events if event["event"] == "finished"]
        return tuple(p for p in (told[-1] if told else None) or () if isinstance(p, int | float))

    @property
    def members(self) -> int:
        """How many networks are in the population; with halving, how many are paid for."""
        return self.plan.members or len(self.population.begun)

    @property
    def generations(self) -> int:
        """How many generations are planned; those that were met where run.yaml does not say."""
        return self.plan.generations or max((result.generation for result in self.population.results), default=0)

    @cached_property
    def other_settings(self) -> tuple[str, ...]:
        """What is searched beside expert counts."""
        met = [key for member in self.population.begun.values() for key in member.settings]
        return tuple(key for key in dict.fromkeys([*self.plan.space, *met]) if not is_count(key))

    @property
    def copies(self) -> bool:
        """Whether members copy each other in this search."""
        return self.plan.copies or any(result.donor for result in self.population.results)
