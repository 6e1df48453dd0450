"""history.jsonl: what happened in a search, written by the driver alone; a search goes on from it.

member   {member, settings}                         what a member begins with
result   {id, generation, member, settings, counts, score, start, state, ...}   a member has trained a generation;
         `start` names the result that it went on from, `state` the folder of what it left (null: training failed)
copy     {generation, member, donor, settings, start}   after that generation it goes on as a copy of the donor
closed   {generation}                               everybody has been compared (synchronous search)
stopped, dropped   {member, generation, error}      a member trains no more
started, resumed, finished                          of the search
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Replay(Enum):
    """What a member tells again of its own results when a search is taken up."""

    OPEN = "open"
    """What came after the last comparison: everybody goes back to it (synchronous pbt)."""
    ALL = "all"
    """Everything, so that the scheduler knows it (asha, random)."""
    NONE = "none"
    """Nothing (asynchronous pbt: it would copy again)."""


@dataclass(frozen=True)
class Start:
    """What a member goes on with.

    :param settings: of the member from now on.
    :param generation: the last one that it has trained, before those that are replayed.
    :param state: the result line of the generation that it goes on from; None: from nothing.
    :param replay: results of its own, to be told again in this order before it trains.
    :param over: whether it trains no more after that.
    """

    settings: Mapping[str, Any]
    generation: int = 0
    state: Mapping[str, Any] | None = None
    replay: tuple[Line, ...] = ()
    over: bool = False


@dataclass
class History:
    """The lines of a history, and what follows from them."""

    path: Path
    lines: list[Line] = field(default_factory=list)
    sealed: bool = field(default=False, init=False)

    @classmethod
    def open(cls, path: Path) -> History:
        """The history at `path`, empty if there is none; a last line that was cut short is taken off."""
        history = cls(path)
        if path.exists():
            whole = [text for text in path.read_text(encoding="utf-8").splitlines(keepends=True) if text.endswith("\n")]
            path.write_text("".join(whole), encoding="utf-8")
            history.lines = [json.loads(text) for text in whole]
        return history

    def add(self, *lines: Line) -> None:
        """Appends lines in one write; infinite numbers become null. Of a sealed history nothing changes any more."""
        if self.sealed:
            return
        lines = tuple({**{k: _finite(v) for k, v in line.items()}, "time_s": time.time()} for line in lines)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        self.lines += lines

    def seal(self) -> None:
        """Takes no more lines: those of a search that is being taken down are about the end, not about its members."""
        self.sealed = True

    def of(self, *events: str) -> list[Line]:
        """All lines of these kinds, in order."""
        return [line for line in self.lines if line["event"] in events]

    @property
    def results(self) -> list[Line]:
        """Every generation that was trained."""
        return self.of("result")

    @property
    def best(self) -> Line | None:
        """The result with the lowest score of the whole history; the earliest of equals."""
        scored = [line for line in self.results if line["score"] is not None]
        return min(scored, key=lambda line: line["score"], default=None)

    @property
    def closed(self) -> int:
        """The last generation after which everybody was compared."""
        return max((line["generation"] for line in self.of("closed")), default=0)

    def has(self, result_id: str) -> bool:
        """Whether this result is written down."""
        return any(line["id"] == result_id for line in self.results)

    def result(self, result_id: str) -> Line:
        """The result that has this id."""
        return next(line for line in self.results if line["id"] == result_id)

    def ancestry(self, result: Line) -> list[Line]:
        """The results that led to this one, the first generation first, itself last."""
        found = [result]
        while (start := found[-1]["start"]) is not None:
            found.append(self.result(start["id"]))
        return found[::-1]

    def starts(self, replay: Replay) -> dict[int, Start]:
        """What each member goes on with when a search is taken up again."""
        gone = {line["member"] for line in self.of("dropped")}
        members = [line["member"] for line in self.of("member") if line["member"] not in gone]
        return {member: self._start(member, replay) for member in members}

    def _start(self, member: int, replay: Replay) -> Start:
        mine = [line for line in self.of("member", "result", "copy") if line["member"] == member]
        known = mine if replay is not Replay.OPEN else [line for line in mine if line.get("generation", 0) <= self.closed]
        results = [line for line in mine if line["event"] == "result"]
        again = {
            Replay.OPEN: [line for line in results if line["generation"] > self.closed],
            Replay.ALL: results,
            Replay.NONE: [],
        }[replay]
        last, state = known[-1], self._stood_on(known[-1])
        if replay is Replay.ALL:
            generation = 0
        else:
            generation = state["generation"] if last["event"] == "copy" and state else last.get("generation", 0)
        return Start(
            settings=last["settings"],
            generation=generation,
            state=state,
            replay=tuple(again),
            over=any(line["member"] == member for line in self.of("stopped")),
        )

    def _stood_on(self, line: Line) -> Line | None:
        """The result whose state a member goes on from after this line."""
        if line["event"] == "result" and line["state"] is not None:
            return line
        start = line.get("start")
        return None if start is None else self.result(start["id"])

    def needed_states(self) -> set[str]:
        """States that a member may still be copied from or go on from, and the best: what retention must not delete.

        Until the next comparison is written down, an interrupted search goes back to the last one.
        """
        over = {line["member"] for line in self.of("stopped", "dropped")}
        needed = [self.best] if self.best else []
        for member in {line["member"] for line in self.of("member")} - over:
            mine = [line for line in self.of("result", "copy") if line["member"] == member]
            recent = [line for line in mine if line["generation"] >= self.closed]
            needed += [line for line in map(self._stood_on, [*recent, *mine[-1:]]) if line]
        return {line["state"] for line in needed}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
