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
    try:
        if address is None:
            cpus = max(os.cpu_count() or 1, workers + 1)
            ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a bare one where its own processes do not come up in time
        if address is None:
            raise WorkFailedError(f"a local Ray did not start: {str(error).splitlines()[0]}; try again") from error
        raise InputError(f"no Ray cluster answers: {str(error).splitlines()[0]}", where=f"--address {address}") from error
    try:
        yield
    finally:
        ray.shutdown()
