"""Exit codes: what a command that waited for a job, or stopped one, ends with."""

from __future__ import annotations

import pytest

from mtids_dist.submit import How, Job, JobState, Stop
from mtids_dist.submit.states import RUN


def job(state: JobState, exit_code: int | None = None, *, run: str | None = None) -> Job:
    return Job(id="first", state=state, entrypoint="true", metadata={RUN: run} if run else {}, exit_code=exit_code)


@pytest.mark.parametrize(
    ("state", "exit_code", "code"),
    [
        (JobState.SUCCEEDED, 0, 0),
        (JobState.SUCCEEDED, None, 0),
        (JobState.FAILED, 7, 7),
        (JobState.FAILED, -9, 137),
        (JobState.FAILED, None, 1),
        (JobState.STOPPED, None, 1),
    ],
)
def test_a_follower_exits_as_the_job_did(state: JobState, exit_code: int | None, code: int) -> None:
    assert job(state, exit_code).code == code


@pytest.mark.parametrize(
    ("how", "run", "code"),
    [
        (How.WAS_OVER, "/shared/run", 0),
        (How.FLAG, "/shared/run", 0),
        (How.SIGNAL, "/shared/run", 1),
        (How.SIGNAL, None, 0),
        (How.NOT_YET, None, 1),
    ],
)
def test_a_stop_succeeds_where_nothing_was_lost(how: How, run: str | None, code: int) -> None:
    assert Stop(job(JobState.STOPPED, run=run), how).code == code
