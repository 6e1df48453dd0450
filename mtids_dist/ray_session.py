"""The Ray that a verb works on: the cluster at an address, or a private one on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mtids_dist.errors import InputError, WorkFailedError


@contextmanager
def ray_session(address: str | None, *, workers: int = 1) -> Iterator[None]:
    """Connects to the cluster at `address`, or starts a local Ray with room for `workers` and one task that reads data.

    Ray's own words stay in its session's log files.

    :raises InputError: no cluster answers at `address`.
    :raises WorkFailedError: a local Ray did not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A worker keeps the user's working directory, so that what a relative path means does not change.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if address is not None:
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # fills the dashboard's Train tab
    import ray
    import ray.data  # sets its loggers up when it is imported, so before they are turned down

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        yield
        return
    if address is None:
        _start_local(max(os.cpu_count() or 1, workers + 1))
    else:
        _connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def crowded(cpus: float) -> str:
    """What to tell a user whose work wants `cpus` and one more to read data, where others on the cluster leave less than that
    and reading may stand still; empty where there is room, or never was."""
    import ray

    everything, free = ray.cluster_resources().get("CPU", 0.0), ray.available_resources().get("CPU", 0.0)
    if free + 1e-6 >= min(cpus + 1.0, everything):
        return ""
    return (
        f"{free:g} of the cluster's {everything:g} CPUs are free, this wants {min(cpus + 1.0, everything):g}: "
        "it may stand still until other work ends"
    )


def _start_local(cpus: int) -> None:
    import ray

    try:
        ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a bare one where its own processes do not come up in time
        raise WorkFailedError(f"a local Ray did not start: {_first_line(error)}; try again") from error


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster answers: {_first_line(error)}", where=f"--address {address}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
