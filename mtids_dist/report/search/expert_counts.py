"""Expert counts as text: those of one network, and what a copy changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mtids_dist.report.search.records import OF_TASK, SHARED, Counts

_MOST_TASKS = 5
"""A label with more private counts is too long; then it gives their range."""


@dataclass(frozen=True)
class Change:
    """One count before and after a copy."""

    name: str
    before: int | None
    after: int | None

    @property
    def grows(self) -> bool:
        """Whether there are more experts after it."""
        return self.before is not None and self.after is not None and self.after > self.before

    @property
    def shrinks(self) -> bool:
        """Whether there are fewer experts after it."""
        return self.before is not None and self.after is not None and self.after < self.before


def is_count(setting: str) -> bool:
    """Whether a searched setting is a number of experts."""
    return setting.removeprefix("model.").split(".")[0] in (SHARED, OF_TASK)


def label_of(counts: Counts | None) -> str:
    """`S4 P2`: four shared experts, two private ones of every task; `S4 P2·1·3` where tasks differ, in their order."""
    if not counts:
        return ""
    private = [count for name, count in counts.items() if name != SHARED]
    shared = [f"S{counts[SHARED]}"] if SHARED in counts else []
    if len(set(private)) <= 1:
        return " ".join(shared + [f"P{count}" for count in private[:1]])
    told = "·".join(map(str, private)) if len(private) <= _MOST_TASKS else f"{min(private)}-{max(private)}"
    return " ".join([*shared, f"P{told}"])


def changes(before: Counts | None, after: Counts | None) -> list[Change]:
    """Every count before and after; all tasks' private experts as one where they are alike."""
    before, after = before or {}, after or {}
    names = list(dict.fromkeys([*before, *after]))
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    private = [pair for name, pair in pairs.items() if name != SHARED]
    if len(private) > 1 and len(set(private)) == 1:
        pairs = {name: pair for name, pair in pairs.items() if name == SHARED} | {OF_TASK: private[0]}
    return [Change(name_of(name), *pair) for name, pair in pairs.items()]


def name_of(count: str) -> str:
    """A count in words."""
    if count == SHARED:
        return "shared"
    return "private" if count == OF_TASK else count.removeprefix(f"{OF_TASK}.")


def groups_of(all_counts: Iterable[Counts]) -> dict[str, str]:
    """Count -> its title; one of them for all tasks where no network ever tells them apart."""
    known = list(all_counts)
    names = list(dict.fromkeys(name for counts in known for name in counts))
    private = [name for name in names if name != SHARED]
    if len(private) > 1 and all(len({counts.get(name) for name in private}) == 1 for counts in known):
        names = [name for name in names if name == SHARED] + private[:1]
        return {name: "Shared experts" if name == SHARED else "Private experts of each task" for name in names}
    return {name: "Shared experts" if name == SHARED else f"Private experts: {name_of(name)}" for name in names}
