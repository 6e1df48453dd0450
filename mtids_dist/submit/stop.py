"""Stopping a job so that nothing is lost: the run's own flag, its checkpoint, and only then Ray's signals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mtids_dist.submit.call import STOP_WAIT_S
from mtids_dist.submit.cluster import Cluster
from mtids_dist.submit.helper import helper
from mtids_dist.submit.on_cluster import NO_FOLDER
from mtids_dist.submit.states import Job

POLL_S = 0.5
RAYS_WAIT_S = 3
"""RAY_JOB_STOP_WAIT_TIME_S of a job that doesn't say."""


class How(str, Enum):
    """What ended a job."""

    WAS_OVER = "was over already"
    FLAG = "ended by itself after its stop flag was set"
    SIGNAL = "ended by Ray's signals"
    NOT_YET = "still runs"


@dataclass(frozen=True)
class Stop:
    """What came of a stop."""

    job: Job
    how: How

    @property
    def code(self) -> int:
        """0: nothing was lost. 1: it still runs, or Ray had to end a run that did not follow its flag."""
        return 1 if self.how is How.NOT_YET or (self.how is How.SIGNAL and self.job.run) else 0

    def __str__(self) -> str:
        return f"{self.job}; {self.how.value}"

    def to_json(self) -> dict[str, Any]:
        """The job, and how it ended."""
        return {**self.job.to_json(), "how": self.how.name.lower()}


def stop(cluster: Cluster, job_id: str, *, grace_s: float, say: Callable[[str], None]) -> Stop:
    """Asks the job's run to stop, waits for its checkpoint, and has Ray end what is left. A job without a run is ended at once.

    :param grace_s: how long the run may take for its checkpoint.
    :raises InputError: no such job.
    """
    job = cluster.known_job(job_id)
    if job.state.is_over:
        return Stop(job, How.WAS_OVER)
    if job.run is not None and _set_flag(cluster, job, say):
        job = _wait(cluster, job_id, grace_s)
        if job.state.is_over:
            return Stop(job, How.FLAG)
        say(f"no checkpoint within {grace_s:g} s")
    cluster.stop(job_id)
    say(f"Ray ends {job_id}: SIGTERM now, SIGKILL {STOP_WAIT_S if job.run else RAYS_WAIT_S} s later")
    job = _wait(cluster, job_id, STOP_WAIT_S + 30.0)
    return Stop(job, How.SIGNAL if job.state.is_over else How.NOT_YET)


def _set_flag(cluster: Cluster, job: Job, say: Callable[[str], None]) -> bool:
    """Whether there is a run folder to set it in."""
    assert job.run is not None
    with helper(cluster, job.id, "stop", job.run) as flag:
        done, said = flag.wait(lambda _: False)
    if done.code == NO_FOLDER:
        say(f"{job.run} is not there yet: nothing to keep")
        return False
    say(
        f"asked the run in {job.run} to stop"
        if done.code == 0
        else f"could not set its stop flag: {said.strip().splitlines()[-1]}"
    )
    return done.code == 0


def _wait(cluster: Cluster, job_id: str, limit_s: float) -> Job:
    end = time.monotonic() + limit_s
    while not (job := cluster.known_job(job_id)).state.is_over and time.monotonic() < end:
        time.sleep(POLL_S)
    return job
