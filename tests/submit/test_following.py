"""What a follower says while a cluster is out of reach, and where a fetched folder can't be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtids_dist.errors import InputError, WorkFailedError
from mtids_dist.submit import Follower, Job, JobState, fetch
from mtids_dist.submit.address import Address
from mtids_dist.submit.cluster import LostError
from mtids_dist.submit.states import RUN

DONE = Job(id="first", state=JobState.SUCCEEDED, entrypoint="train", metadata={RUN: "/shared/run"}, exit_code=0)


class AwayFor:
    """A cluster that does not answer the first questions."""

    address = Address("http://head:8265", "--address")

    def __init__(self, questions: int) -> None:
        self._left = questions

    def job(self, _: str) -> Job:
        self._left -= 1
        if self._left >= 0:
            raise LostError("http://head:8265 does not answer: Connection refused")
        return DONE

    def log(self, _: str) -> str:
        return "all of it\n"


def follower(cluster: Any, written: list[str], said: list[str], patience_s: float) -> Follower:
    return Follower(cluster, "first", written.append, say=said.append, patience_s=patience_s)


def test_a_cluster_that_comes_back_is_told_of_once() -> None:
    written: list[str] = []
    said: list[str] = []
    assert follower(AwayFor(2), written, said, patience_s=60).follow() == DONE
    assert said == [
        "http://head:8265 does not answer: Connection refused; trying again for 60 s",
        "the cluster answers again",
    ]
    assert written == ["all of it\n"]


def test_patience_ends() -> None:
    with pytest.raises(WorkFailedError, match="Connection refused, for 0 s; first may still run"):
        follower(AwayFor(9), [], [], patience_s=0).follow()


def test_a_folder_that_cannot_be_made_is_refused_before_contact() -> None:
    cluster: Any = None
    with pytest.raises(InputError, match=r"--out /proc/nowhere: no folder can be made there"):
        fetch(cluster, DONE, Path("/proc/nowhere"), progress=lambda *_: None)
