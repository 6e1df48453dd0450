"""How long work tells the caller where it stands; the command line turns this into a bar."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as `progress(done, total, text)`: `text` names the stage, and a new stage starts its count again."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """`done` of `total` (0 while unknown) units of the stage `text` are done."""


def no_progress(done: int, total: int, text: str) -> None:
    """The progress of nobody looking."""
