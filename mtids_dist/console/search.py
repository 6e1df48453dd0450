"""A search as it goes on: a bar and a table of the population on a terminal, a line a result otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mtids_dist.console.terminal import console, number, say


class SearchDisplay:
    """Takes up the lines of a search's history.

    :param budget: generations that will be trained, over all members.
    """

    def __init__(self, budget: int) -> None:
        self._live: Live | None = None
        self._bars = Progress(
            TextColumn("generations trained"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            console=console,
        )  # fmt: skip
        self._bar = self._bars.add_task("search", total=budget)
        self._last: dict[int, Mapping[str, Any]] = {}
        self._trained = 0
        self._failures: list[str] = []

    def __enter__(self) -> SearchDisplay:
        if console.is_terminal:
            self._live = Live(self._bars, console=console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Takes up one line."""
        event = line["event"]
        if event in ("started", "resumed"):
            self._trained = line["trained"]
            seed, hosts = line["seed"], line["hosts"]
            say(f"{event} (seed {seed}): {hosts} member(s) train at a time, {_resources(line['resources'])} a rank")
        elif event == "result":
            self._take_result(line)
        elif event == "dropped":
            self._tell_failure(line)
        elif event == "finished":
            self._tell_end(line)
        if self._live is not None:
            self._bars.update(self._bar, completed=self._trained)
            self._live.update(self._table())

    def _take_result(self, line: Mapping[str, Any]) -> None:
        self._last[line["member"]] = line
        self._trained += 1
        if line["error"] is not None:
            self._tell_failure(line)
        elif self._live is None:
            say(_result_text(line))

    def _tell_failure(self, line: Mapping[str, Any]) -> None:
        what = "was dropped" if line["event"] == "dropped" else "failed"
        text = f"member {line['member']} {what} in generation {line['generation']}: {line['error']}"
        self._failures.append(text)
        say(text)

    def _tell_end(self, line: Mapping[str, Any]) -> None:
        best, pauses = line["winner"], line["pauses_s"]
        loss = number(best["score"])
        say(f"best: member {best['member']} after generation {best['generation']}, loss {loss} ({_counts(best['counts'])})")
        if pauses:
            say(f"from a generation's end to the next step: median {median(pauses):.1f} s, longest {max(pauses):.1f} s")
        if self._failures:
            say(f"{len(self._failures)} failure(s): " + "; ".join(self._failures))

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row(self._bars)
        members = Table("member", "generation", "validation loss", "experts", "went on from", box=None, padding=(0, 2))
        for member, line in sorted(self._last.items()):
            start = line["start"]
            origin = "" if start is None or start["member"] == member else f"member {start['member']}"
            loss = "failed" if line["error"] else number(line["score"])
            members.add_row(str(member), str(line["generation"]), loss, _counts(line["counts"]), origin)
        table.add_row(members)
        return table


def _result_text(line: Mapping[str, Any]) -> str:
    text = f"generation {line['generation']} member {line['member']}: loss {number(line['score'])} ({_counts(line['counts'])})"
    if line["loss_before"] is not None:
        text += f"; copied member {line['start']['member']}: loss {number(line['loss_before'])} -> {number(line['loss_after'])}"
    return text + (f"; refused: {line['refused']}" if line["refused"] else "")


def _counts(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return ""
    private = [count for name, count in counts.items() if name != "shared_experts"]
    return f"{counts['shared_experts']} shared, {' '.join(map(str, private))} private"


def _resources(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
