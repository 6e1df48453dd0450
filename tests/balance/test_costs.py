"""What a step sends and keeps, counted where it happens: at the interfaces of network namespaces, and by torch's profiler."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "balance"
TASKS = 3
MOST_BYTES = {"exact": 2.6, "sketch": 1.05, "representation": 1.01, "between": 1.01}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """On 2 and 4 ranks, a shared part of 2 million parameters."""
    path = tmp_path_factory.mktemp("costs") / "found.json"
    words = ["ranks", "--ranks", "2", "4", "--rounds", "9", "--json", str(path)]
    done = subprocess.run([sys.executable, str(BENCHMARK), *words], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 2 and "network namespaces:" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(path.read_text())["ranks"]
    return found


def test_bytes_on_the_interface_are_few(runs: list[dict[str, Any]]) -> None:
    for run in runs:
        assert run["shared_bytes"] >= 4e6
        plain = run["steps"]["plain"]["bytes"]
        expected = 2 * run["shared_bytes"] * (run["ranks"] - 1) / run["ranks"]
        assert 1 <= plain / expected <= 1.02, "the interface counts what an all-reduce of the gradients sends"
        for way, most in MOST_BYTES.items():
            assert run["steps"][way]["bytes"] <= most * plain, (run["ranks"], way)


def test_few_gradients_are_alive_at_once(runs: list[dict[str, Any]]) -> None:
    for run in runs:
        plain = run["steps"]["plain"]["peak_bytes"]
        above = {way: (step["peak_bytes"] - plain) / run["shared_bytes"] for way, step in run["steps"].items()}
        assert above["exact"] <= TASKS + 2 + TASKS / run["ranks"]
        assert above["sketch"] <= TASKS + 0.1
        assert max(above["representation"], above["between"]) <= 0.1
