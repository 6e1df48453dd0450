"""metrics.jsonl: one JSON object a line, written by rank 0, read by displays and reports while the run goes on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]

REWOUND = "rewound"
"""The event behind what is left after a rewind: a reader has seen what stands before it."""


class MetricsLog:
    """Appends lines; `kind` is step, validation or event."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, kind: str, **fields: Any) -> None:
        """One line, in one write. Not-finite numbers become null."""
        line = json.dumps({"kind": kind, **_finite(fields)}, allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def rewind(self, step: int) -> None:
        """Forgets steps and validations after `step`: the run goes on from a checkpoint and will write them again."""
        if not self._path.exists():
            return
        kept = [line for line in read_lines(self._path) if line["kind"] == "event" or line["step"] <= step]
        kept.append({"kind": "event", "event": REWOUND, "step": step, "time_s": time.time()})
        draft = self._path.with_suffix(".draft")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        draft.replace(self._path)


def read_lines(path: Path) -> Iterator[Line]:
    """All whole lines; a last line that is still being written is left out."""
    with path.open(encoding="utf-8") as file:
        for text in file:
            if text.endswith("\n"):
                yield json.loads(text)


class Tail:
    """What has been added to a metrics.jsonl since the last look; survives its being rewritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._offset = 0

    def skip(self) -> None:
        """Starts behind what is there now."""
        for _ in self.new_lines():
            pass

    def new_lines(self) -> Iterator[Line]:
        """Whole lines added since the last call."""
        try:
            with self._path.open("rb") as file:
                yield from self._read(file)
        except FileNotFoundError:
            return

    def _read(self, file: Any) -> Iterator[Line]:
        status = os.fstat(file.fileno())
        if self._inode is not None and status.st_ino != self._inode:
            self._offset = _end_of_what_is_left(file)
        self._inode = status.st_ino
        file.seek(self._offset)
        for text in file:
            if not text.endswith(b"\n"):
                return
            self._offset += len(text)
            yield json.loads(text)


def _end_of_what_is_left(file: Any) -> int:
    """Where the last rewind put its event: the next line is new."""
    end, position = 0, 0
    file.seek(0)
    for text in file:
        position += len(text)
        if text.endswith(b"\n") and json.loads(text).get("event") == REWOUND:
            end = position
    return end


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
