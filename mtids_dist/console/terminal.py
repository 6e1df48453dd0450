"""The terminal: one line, a bar, an error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

PLAIN_EVERY_S = 5.0


class Report(Protocol):
    """Called as `report(done, total, text)`."""

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` units of the stage `text` are done."""


def say(text: str) -> None:
    """One line to the user."""
    console.print(text, markup=False, soft_wrap=True)


def notice(*lines: str) -> None:
    """Lines about the work, on stderr: stdout is the answer's."""
    for line in lines:
        errors.print(line, markup=False)


def ask(question: str, *, otherwise: str) -> str:
    """The first letter of what is typed, in lower case; `otherwise` where nobody can answer, or nothing is."""
    if not (sys.stdin.isatty() and errors.is_terminal):
        return otherwise
    errors.print(question, markup=False, end=" ")
    try:
        return sys.stdin.readline().strip().lower()[:1] or otherwise
    except KeyboardInterrupt:
        return otherwise


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """A bar a stage; where there is no terminal a line every few seconds and one at each stage's end."""
    if not console.is_terminal:
        yield _PlainProgress(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        stages: dict[str, Any] = {}

        def report(done: int, total: int, text: str = "") -> None:
            if text not in stages:
                stages[text] = bars.add_task(f"{title}: {text}" if text else title, total=None)
            bars.update(stages[text], completed=done, total=total or None)

        yield report


class _PlainProgress:
    def __init__(self, title: str) -> None:
        self._title, self._last = title, time.monotonic()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.monotonic()
        if done == total or now - self._last > PLAIN_EVERY_S:
            self._last = now
            say(f"{self._title}{': ' + text if text else ''} {done}/{total}")


def number(value: float | None) -> str:
    """Three decimals, or a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"
