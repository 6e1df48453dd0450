"""How long a verb takes to its first line of output: here on a private Ray, and submitted to a cluster, cold each time.

    python benchmarks/submit.py [--address http://head:8265] [--times 3]

Without an address it starts a cluster of one node with token authentication, as the tests do. Prints, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "submit"), str(ROOT / "tests" / "train")]

from local_cluster import local_cluster  # noqa: E402 - the tests' own
from tiny import make_store, write_description  # noqa: E402

FIRST_WORD = "started at step"
"""How a training's first line begins."""


def seconds_to_first_line(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds to a job's first line of log (nothing where there is no job), and to the verb's own first line."""
    began, first = time.monotonic(), 0.0
    command = [sys.executable, "-u", "-m", "mtids_dist", *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            first = first or time.monotonic() - began
            if line.startswith(FIRST_WORD):
                found = first, time.monotonic() - began
                process.stdout.read()
                return found
    raise SystemExit(f"{' '.join(words)} ended without having begun")


@contextmanager
def cluster_at(address: str | None) -> Iterator[tuple[str, dict[str, str]]]:
    """An address, and the environment of a user who may go there."""
    if address is not None:
        yield address, dict(os.environ)
        return
    with local_cluster() as cluster:
        yield cluster.address, cluster.environment


def main() -> None:
    """Trains a tiny store in turn here and as a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    here, log, submitted = [], [], []
    with cluster_at(given.address) as (address, environment), tempfile.TemporaryDirectory() as home:
        store = make_store(Path(home, "store"))
        os.chdir(home)
        for number in range(given.times):
            for kind in ("here", "job"):
                path = write_description(Path(home, f"{kind}{number}.yaml"), store, epochs=1)
                if kind == "here":
                    here.append(seconds_to_first_line(["train", path.name], environment)[1])
                else:
                    words = ["submit", "train", path.name, "--address", address, "--follow"]
                    first, verb = seconds_to_first_line(words, environment)
                    log.append(first)
                    submitted.append(verb)
    for what, found in (
        ("verb here, to its first line", here),
        ("submitted, to the first line of its log", log),
        ("submitted, to the verb's first line", submitted),
    ):
        print(f"{what:42} median {median(found):5.1f} s   each {', '.join(f'{each:.1f}' for each in found)}")
    more = [job - local for job, local in zip(submitted, here, strict=True)]
    print(f"{'more than here':42} median {median(more):5.1f} s   each {', '.join(f'{each:.1f}' for each in more)}")


if __name__ == "__main__":
    main()
