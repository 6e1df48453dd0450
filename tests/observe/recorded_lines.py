"""Lines that a real train and a real tune have written (tests/train/tiny.py, tests/tune/tiny_search.py), some left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (RECORDED / name).read_text().splitlines()]


METRICS, HISTORY = lines("metrics.jsonl"), lines("history.jsonl")
TASKS = ("bright", "upper")
EXPERTS = {"shared": 2, "private": 1}
