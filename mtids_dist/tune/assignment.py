"""What a member is given to train, and the first lines of what is written about it. Light to import: every trial does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One member's next generation.

    :param generation: from 1; it ends with epoch generation x (train.epochs / generations).
    :param settings: dotted setting -> value.
    :param start: the result line that it goes on from; of another member if it copies. None: from nothing.
    :param again: how often this member has trained this generation before: an asynchronous copy can fall back in time.
    """

    generation: int
    member: int
    settings: Mapping[str, Any]
    start: Mapping[str, Any] | None
    again: int = 0

    @property
    def name(self) -> str:
        """The folder of this generation and member, inside the search folder."""
        again = f"-{self.again}" if self.again else ""
        return str(Path("generations", f"{self.generation:03}", f"member-{self.member:03}{again}"))

    @property
    def copies(self) -> bool:
        """Whether it goes on from what another member learned."""
        return self.start is not None and self.start["member"] != self.member

    def result(self, **found: Any) -> dict[str, Any]:
        """The history's line of this generation."""
        start = self.start
        line = {
            "event": "result",
            "id": self.name,
            "generation": self.generation,
            "member": self.member,
            "settings": dict(self.settings),
            "start": None if start is None else {key: start[key] for key in ("member", "generation", "id")},
        }
        return line | found

    def failure(self, error: str) -> dict[str, Any]:
        """The line of a generation whose training failed: no score, and no state of its own."""
        return self.result(score=None, counts=None, state=None, error=error)
