"""A pod's preStop hook: asks the runs that are driven from it for a checkpoint, and waits until it is written.

On the head it sets the stop flag of every run whose job is going on. Everywhere it then waits until no driver and no rank is
left, or its time is up: a cluster's pods are all told to go at once, and ranks have to live until the checkpoint is written.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

STOPPABLE = ("train", "tune", "study")
"""Verbs that a file STOP in their folder ends with a checkpoint."""
RANKS = (b"ray::RayTrainWorker", b"ray::Host")
"""How Ray names the processes of Train's workers and of a search's hosts."""
DRIVER = [b"-m", b"mtids_dist"]
JOB = b"RAY_JOB_CONFIG_JSON_ENV_VAR="
"""Ray tells a job's processes its metadata in this variable; ours name the verb and the run folder."""
PROC = Path("/proc")
POLL_S = 0.5


def stop_runs(seconds: float) -> bool:
    """Sets the flags and waits. Whether everything had left in time."""
    for run in _driven_runs():
        if (run / "run.yaml").exists():  # a flag in an empty folder would make it no run folder
            (run / "STOP").touch()
    deadline = time.monotonic() + seconds
    while _busy():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _driven_runs() -> Iterator[Path]:
    for process in _processes():
        if _arguments(process)[1:3] != DRIVER:
            continue
        metadata = _job_metadata(process)
        if metadata.get("mtids_dist.verb") in STOPPABLE and "mtids_dist.run" in metadata:
            yield Path(metadata["mtids_dist.run"])


def _busy() -> bool:
    return any(
        arguments[1:3] == DRIVER or (arguments and arguments[0].startswith(RANKS)) for arguments in map(_arguments, _processes())
    )


def _processes() -> Iterator[Path]:
    return (entry for entry in PROC.iterdir() if entry.name.isdigit())


def _arguments(process: Path) -> list[bytes]:
    return _words(process / "cmdline")


def _job_metadata(process: Path) -> dict[str, str]:
    for word in _words(process / "environ"):
        if word.startswith(JOB):
            return dict(json.loads(word[len(JOB) :]).get("metadata", {}))
    return {}


def _words(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:  # it has just ended, or is not ours
        return []


def main() -> None:
    """`python -m mtids_dist.in_pod.stop_run --seconds 270`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="how long to wait")
    raise SystemExit(0 if stop_runs(parser.parse_args().seconds) else 1)


if __name__ == "__main__":
    main()
