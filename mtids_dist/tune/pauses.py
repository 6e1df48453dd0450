"""How long nothing is trained between two generations."""

from __future__ import annotations

from mtids_dist.tune.history import History


def pauses_s(history: History) -> list[float]:
    """Seconds from the end of each generation of a synchronous search to the first step of the next one, by any member.

    Where the search was interrupted the wait for the user is left out.
    """
    interrupted = [line["time_s"] for line in history.of("resumed")]
    ends: dict[int, float] = {}
    firsts: dict[int, float] = {}
    for line in history.results:
        if line["error"] is None:
            generation = line["generation"]
            ends[generation] = max(ends.get(generation, 0.0), line["ended_s"])
            firsts[generation] = min(firsts.get(generation, float("inf")), line["first_step_s"])
    spans = [(ends[g - 1], firsts[g]) for g in firsts if g - 1 in ends]
    return [first - end for end, first in spans if not any(end < time <= first for time in interrupted)]
