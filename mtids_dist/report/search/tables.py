"""Tables of the page as text: every copy, the way to the best member, where every member stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtids_dist.report.search.expert_counts import Change, changes
from mtids_dist.report.search.records import Counts, LineageEvent, Result
from mtids_dist.report.search.search import Search
from mtids_dist.report.table import NONE


@dataclass(frozen=True)
class CopyRow:
    """One copy of lineage.json."""

    generation: int
    member: int
    donor: int
    counts: list[Change]
    loss_before: str
    loss_after: str
    difference: str
    change: str
    refused: str
    ancestor: bool


@dataclass(frozen=True)
class ResultRow:
    """One result, and where its member stands."""

    member: int
    generation: int
    loss: str
    counts: list[str]
    parameters: str
    settings: list[str]
    origin: str
    state: str
    best: bool


def copy_rows(search: Search) -> list[CopyRow]:
    """Every copy, in the order in which they were trained."""
    copied = {(r.donor.generation, r.donor.member, r.member) for r in search.population.ancestry if r.donor}
    return [_copy_row(event, (event.generation, event.donor, event.member) in copied) for event in search.lineage]


def _copy_row(event: LineageEvent, ancestor: bool) -> CopyRow:
    return CopyRow(
        generation=event.generation,
        member=event.member,
        donor=event.donor,
        counts=changes(event.counts_before, event.counts_after),
        loss_before=loss_text(event.loss_before),
        loss_after=loss_text(event.loss_after),
        difference=_percent(relative_difference(event)),
        change=loss_text(event.change),
        refused=event.refused or "",
        ancestor=ancestor,
    )


def relative_difference(event: LineageEvent) -> float | None:
    """(loss after - loss before) / loss before; None where one is not known."""
    before, after = event.loss_before, event.loss_after
    return None if before is None or after is None or not before else (after - before) / abs(before)


def ancestry_rows(search: Search) -> list[ResultRow]:
    """The results that led to the best one."""
    best = search.population.best
    return [_result_row(search, result, "best" if result is best else "") for result in search.population.ancestry]


def member_rows(search: Search) -> list[ResultRow]:
    """Every member's last result, the lowest loss first, those without one last."""
    last = search.population.last.values()
    ordered = sorted(last, key=lambda r: (r.score is None, r.score or 0.0, r.member))
    return [_result_row(search, result, _state(search, result)) for result in ordered]


def _result_row(search: Search, result: Result, state: str) -> ResultRow:
    return ResultRow(
        member=result.member,
        generation=result.generation,
        loss=loss_text(result.score),
        counts=counts_text(result.counts),
        parameters=NONE if result.parameters is None else f"{result.parameters:,}",
        settings=[setting_text(result.settings.get(key)) for key in search.other_settings],
        origin=_origin(result),
        state=state,
        best=result is search.population.best,
    )


def _origin(result: Result) -> str:
    if result.start is None:
        return "nothing"
    if result.donor is None:
        return f"itself, generation {result.start.generation}"
    return f"member {result.donor.member}, generation {result.donor.generation}"


def _state(search: Search, result: Result) -> str:
    population = search.population
    said = ["best"] if result is population.best else []
    if result.score is None:
        said.append("failed")
    if result.member in population.dropped:
        said.append("dropped")
    elif result.member in population.stopped:
        said.append("stopped")
    return ", ".join(said)


def counts_text(counts: Counts | None) -> list[str]:
    """`4 shared`, `2 private`, or `2 joint` for each task where tasks differ."""
    return [f"{change.after} {change.name}" for change in changes(counts, counts)]


def settings_text(settings: Mapping[str, Any], keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """(setting, value) of those that are searched beside expert counts."""
    return [(key, setting_text(settings.get(key))) for key in keys]


def setting_text(value: Any) -> str:
    """A setting's value; numbers to three digits."""
    return NONE if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def loss_text(value: float | None) -> str:
    """Four decimals: what a resize may cost is seen in them."""
    return NONE if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:+.3f} %"
