"""How long work tells the caller where it stands; the command line turns this into a bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Called as `progress(done, total, text)`: `text` names the stage, and a new stage starts its count again."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """`done` of `total` (0 while unknown) units of the stage `text` are done."""


def no_progress(done: int, total: int, text: str) -> None:
    """The progress of nobody looking."""


@dataclass(frozen=True, kw_only=True)
class CropCounts:
    """What became of the rows of a node table so far; prepared and rejected add up to all of them in the end."""

    node_rows: int
    prepared: int
    rejected: int


OnCounts = Callable[[CropCounts], None]


def no_counts(counts: CropCounts) -> None:
    """The counts of nobody looking."""


class Tally:
    """Counts what becomes of node rows, and tells it each time."""

    def __init__(self, node_rows: int, on_counts: OnCounts) -> None:
        self._rows, self._prepared, self._rejected = node_rows, 0, 0
        self._on_counts = on_counts

    def add(self, *, prepared: int = 0, rejected: int = 0) -> None:
        """So many more."""
        self._prepared, self._rejected = self._prepared + prepared, self._rejected + rejected
        self._on_counts(CropCounts(node_rows=self._rows, prepared=self._prepared, rejected=self._rejected))
