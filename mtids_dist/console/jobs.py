"""A cluster's jobs as a table."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("id", "state", "exit", "verb", "started", "took", "run")


def job_table(jobs: Sequence[Mapping[str, Any]]) -> str:
    """One line a job; `jobs` as JSON data, times in Unix seconds."""
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for job in jobs:
        table.add_row(
            job["id"],
            job["state"],
            "" if job["exit_code"] is None else str(job["exit_code"]),
            job["verb"] or "",
            _started(job["started_s"]),
            _took(job["started_s"], job["ended_s"]),
            job["run"] or "",
        )
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _started(at_s: float | None) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(at_s)) if at_s else ""


def _took(from_s: float | None, to_s: float | None) -> str:
    if from_s is None:
        return ""
    minutes, seconds = divmod(int((to_s or time.time()) - from_s), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
