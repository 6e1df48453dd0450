"""Submitting a job, or finding that it is there already."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mtids_dist.errors import InputError
from mtids_dist.submit.cluster import Cluster, LostError
from mtids_dist.submit.states import CONTENT, Job
from mtids_dist.submit.submission import Submission

TRIES, AGAIN_S = 3, 5.0


@dataclass(frozen=True)
class Sent:
    """The job, and whether it was there before."""

    job: Job
    attached: bool

    def __str__(self) -> str:
        job = self.job
        if not self.attached:
            return f"submitted {job.id}"
        if not job.state.is_over:
            return f"{job.id} is there already ({job.state.value}): attached to it"
        return f"{job}; it has ended before. To run it again give another id: --id {another_id(job.id)}"


def send(cluster: Cluster, submission: Submission, *, before_upload: Callable[[], None]) -> Sent:
    """Submits a job unless its id is taken by the same job; Ray would answer that with an error of its server.

    :param before_upload: called when something is about to be sent.
    :raises InputError: the id is taken by a job that runs something else, or another job works in the same run folder.
    """
    known = cluster.job(submission.id)
    if known is not None:
        return _attach(known, submission)
    _refuse_busy(cluster, submission)
    before_upload()
    with submission.staged() as runtime_env:
        for _ in range(TRIES - 1):
            with suppress(LostError):
                return _submit(cluster, submission, runtime_env)
            time.sleep(AGAIN_S)  # a head that has just started takes no jobs for a moment
        return _submit(cluster, submission, runtime_env)


def _refuse_busy(cluster: Cluster, submission: Submission) -> None:
    """Two jobs in one run folder would spoil it."""
    run = submission.call.run
    busy = next((job for job in cluster.jobs() if run and job.run == run and not job.state.is_over), None)
    if busy is not None:
        raise InputError(
            f"{busy.id} works in this run folder",
            where=str(run),
            found=busy.state.value,
            allowed=f"mtids-dist jobs logs {busy.id} --follow, or jobs stop, or another folder (--set run=...)",
        )


def another_id(job_id: str) -> str:
    """The next of a row of ids: a, a-2, a-3, ..."""
    stem, dash, number = job_id.rpartition("-")
    # A single digit: longer ones belong to names and hashes.
    return f"{stem}-{int(number) + 1}" if dash and number in "23456789" else f"{job_id}-2"


def _submit(cluster: Cluster, submission: Submission, runtime_env: Mapping[str, Any]) -> Sent:
    try:
        cluster.submit(submission.id, submission.call.entrypoint, runtime_env, submission.metadata)
    except LostError:
        # The answer may be what was lost, or somebody else was a moment faster.
        known = cluster.job(submission.id)
        if known is None:
            raise
        return _attach(known, submission)
    return Sent(cluster.known_job(submission.id), attached=False)


def _attach(known: Job, submission: Submission) -> Sent:
    if known.metadata.get(CONTENT) != submission.content:
        raise InputError(
            "this id belongs to a job that runs something else",
            where=f"--id {submission.id}",
            found=known.entrypoint,
            allowed=f"another id, for example {another_id(submission.id)}",
        )
    return Sent(known, attached=True)
