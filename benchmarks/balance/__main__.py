"""What balancing costs: in one process beside TorchJD and LibMTL's way, and over ranks in network namespaces.

    python benchmarks/balance                       everything, 13 minutes on two cores; root and iproute2 for the ranks
    python benchmarks/balance costs --tasks 3       one process only, printed
    python benchmarks/balance ranks --ranks 2 4     bytes, seconds and peak memory over ranks only, printed
    python benchmarks/balance page                  the page and the picture anew, from balance.json

Everything is written to benchmarks/results/balance.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from costs import SEED, table
from namespaces import why_not
from page import write
from ranks import measure

RESULTS = Path(__file__).parents[1] / "results"
FULL = {"tasks": [2, 3, 5, 8], "rounds": 40, "ranks": [1, 2, 4]}


def main() -> None:
    """Measures, prints, and writes where everything was measured."""
    o = options()
    if o.part == "page":
        write(RESULTS, json.loads((RESULTS / "balance.json").read_text()))
        return
    if o.part in ("all", "ranks") and (reason := why_not()):
        print(f"network namespaces: {reason}; `costs` goes without", file=sys.stderr)
        raise SystemExit(2)
    document: dict[str, Any] = {"torch": torch.__version__, "machine": machine(), "threads": o.threads, "seed": SEED}
    if o.part in ("all", "costs"):
        document["costs"] = table(o.tasks, o.rounds, o.threads, told)
    if o.part in ("all", "ranks"):
        document["ranks"] = over_ranks(o.ranks, max(3, o.rounds // 3), o.megabits)
    if o.part == "all":
        (RESULTS / "balance.json").write_text(json.dumps(document, indent=1) + "\n")
        write(RESULTS, document)
    elif o.json:
        o.json.write_text(json.dumps(document, indent=1) + "\n")


def over_ranks(counts: list[int], rounds: int, megabits: int) -> list[dict[str, Any]]:
    """A run for each number of ranks."""
    found = []
    for count in counts:
        run = {**measure(count, rounds=rounds * (4 if count == 1 else 1), megabits=megabits), "cores": os.cpu_count()}
        for way, step in run["steps"].items():
            told({"ranks": count, "way": way, **step})
        found.append(run)
    return found


def machine() -> str:
    """Processor and cores, in words."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def told(line: dict[str, Any]) -> None:
    """Prints a line of a table."""
    print(
        "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in line.items()),
        flush=True,
    )


def options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "costs", "ranks", "page"), default="all")
    parser.add_argument("--tasks", type=int, nargs="+", default=FULL["tasks"], help="numbers of tasks, in one process")
    parser.add_argument("--rounds", type=int, default=FULL["rounds"], help="interleaved rounds")
    parser.add_argument("--ranks", type=int, nargs="+", default=FULL["ranks"], help="numbers of ranks")
    parser.add_argument("--megabits", type=int, default=1000, help="that a rank may send a second")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's threads, in one process")
    parser.add_argument("--json", type=Path, help="where one part's numbers are written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
