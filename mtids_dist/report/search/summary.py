"""What a search came to, in a few numbers and sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median

from mtids_dist.report.search.lineage import Kind, kind_of_copy
from mtids_dist.report.search.search import Search
from mtids_dist.report.search.tables import counts_text, loss_text, relative_difference

_NAMES = {"pbt": "population-based training", "asha": "successive halving", "random": "random search"}


@dataclass(frozen=True)
class Card:
    """One number of the headline, and what it is."""

    number: str
    meaning: str


def subtitle(search: Search) -> str:
    """How it was searched, and whether it is over."""
    plan, trained = search.plan, len(search.population.results)
    name = _NAMES.get(plan.scheduler, plan.scheduler) or "search"
    how = (
        f"{plan.scheduler} ({name}{', asynchronous' if plan.copies and not plan.synchronous else ''})" if plan.scheduler else name
    )
    seed = "" if search.seed is None else f", seed {search.seed}"
    state = "finished" if search.finished else "not finished"
    budget = search.members * search.generations
    said = f"Search by {how}: {search.members} members x {search.generations} generations{seed}; {state}"
    return f"{said}, {trained} of {budget} generations trained."


def cards(search: Search) -> list[Card]:
    """The headline: the best member, and what the search did."""
    best, found = search.population.best, []
    if best is not None:
        found.append(Card(loss_text(best.score), "lowest validation loss (mean over tasks)"))
        found.append(Card(f"member {best.member}", f"is the best, after generation {best.generation}"))
        found.append(Card(", ".join(counts_text(best.counts)), "experts it has"))
    found.append(Card(str(len(search.population.results)), "generations trained, over all members"))
    if search.copies:
        number = len(search.lineage)
        found.append(Card(str(number), "copy of a better member" if number == 1 else "copies of better members"))
    if search.pauses_s:
        longest = f"median from a generation's end to the next step; longest {max(search.pauses_s):.1f} s"
        found.append(Card(f"{median(search.pauses_s):.1f} s", longest))
    return found


def lineage_sentence(search: Search) -> str:
    """How many copies were resized how, and what that did to their loss."""
    if not search.copies:
        name = _NAMES.get(search.plan.scheduler, "this search")
        return f"Members don't copy each other in {name}: each has gone its own way, so there is no lineage."
    if not search.lineage:
        return "No copy has been trained yet."
    kinds = Counter(kind_of_copy(event.counts_before, event.counts_after) for event in search.lineage)
    kept = kinds.pop(Kind.SAME, 0)
    told = [f"{number} {kind.value.removeprefix('copy, ')}" for kind, number in kinds.items()]
    same = [f"{kept} with the same counts"] if kept else []
    said = f"{_copies(len(search.lineage))}: {', '.join([*told, *same])}."
    refused = sum(event.refused is not None for event in search.lineage)
    if refused:
        said += f" {refused} refused a change of counts that would have moved the class probabilities too far."
    return f"{said} {_cost(search)}".strip()


def _copies(number: int) -> str:
    return "1 copy" if number == 1 else f"{number} copies"


def _cost(search: Search) -> str:
    if search.plan.resize != "preserve":
        return f"Changed counts began anew (tune.resize: {search.plan.resize})."
    resized = [e for e in search.lineage if kind_of_copy(e.counts_before, e.counts_after) is not Kind.SAME]
    found = [abs(d) for event in resized if (d := relative_difference(event)) is not None]
    if not found:
        return ""
    return f"Resizes moved the loss by {100 * median(found):.3f} % (median), at most {100 * max(found):.3f} %."


def unbegun_sentence(search: Search) -> str:
    """Members that have no result yet; empty where all have."""
    waiting = [member for member in search.population.begun if member not in search.population.last]
    if not waiting:
        return ""
    if len(waiting) > 12:
        return f"{len(waiting)} of {len(search.population.begun)} members have not trained."
    return f"Without a result: member {', '.join(map(str, waiting))}."
