"""Balancing over ranks, each in a network namespace of its own: bytes that its interface sent, wall time, peak memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from namespaces import nodes
from nets import Net

PORT = 29_500


def measure(
    ranks: int,
    *,
    trunk: str = "small_resnet",
    tasks: int = 3,
    rows: int = 8,
    side: int = 32,
    rounds: int = 5,
    megabits: int = 1000,
) -> dict[str, Any]:
    """What `rank.py` found on so many ranks: bytes and seconds averaged over them, the highest peak.

    :raises RuntimeError: a rank failed; its error is on stderr.
    """
    with nodes(ranks, megabits) as places:
        settings = {"ranks": ranks, "trunk": trunk, "tasks": tasks, "rows": rows, "side": side, "rounds": rounds}
        settings["meet"] = f"tcp://{places[0].address}:{PORT}"
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        script = [sys.executable, str(Path(__file__).with_name("rank.py")), *words]
        processes = [place.start([*script, "--rank", str(rank)]) for rank, place in enumerate(places)]
        printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"exit codes of the ranks: {[process.returncode for process in processes]}")
    each = [json.loads(lines) for lines in printed]
    return {
        **{key: settings[key] for key in ("ranks", "trunk", "tasks", "rows", "side", "rounds")},
        "megabits": megabits,
        "shared_bytes": Net(trunk, tasks, 0).shared_bytes,
        "collectives": each[0]["collectives"],
        "steps": {name: _joined([found["steps"][name] for found in each]) for name in each[0]["steps"]},
    }


def _joined(of_ranks: list[dict[str, float]]) -> dict[str, float]:
    means = {key: fmean(found[key] for found in of_ranks) for key in ("bytes", "seconds", "ratio")}
    return {**means, "peak_bytes": max(found["peak_bytes"] for found in of_ranks)}
