"""Files that a report is made of, read or refused in one line, and those it leaves, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mtids_dist.errors import InputError


def read_text(path: Path) -> str:
    """A text file; what is no UTF-8 in it is replaced, so that one bad byte costs one character."""
    return path.read_text(encoding="utf-8", errors="replace")


def parse(text: str) -> Any:
    """JSON as data; None where it is none."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None


def read_object(path: Path, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object with the required keys; InputError where there is none."""
    value = parse(read_text(path))
    if not isinstance(value, dict) or any(key not in value for key in required):
        wanted = f"a JSON object{' with ' + ', '.join(required) if required else ''}"
        raise InputError("this file can't be read", where=str(path), allowed=wanted)
    return value


def write_whole(path: Path, content: bytes) -> Path:
    """Writes a file beside itself and moves it into place: who reads it never meets half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_bytes(content)
    return draft.replace(path)
