"""A deadline: what KubeRay does at it and what it does not, said before it surprises somebody."""

from __future__ import annotations

from typing import Any

import pytest
from manifest_cases import RUN_VERBS, Case, ray_job_spec

from mtids_dist.submit.kubernetes import cautions
from mtids_dist.submit.kubernetes.work import work_of

DEADLINE = {"limits.deadline_s": 7200}
SAID: dict[str, tuple[dict[str, Any], str | None]] = {
    "the default": (DEADLINE, "work on for 600 s (limits.ttl_s)"),
    "another time to live": ({**DEADLINE, "limits.ttl_s": 60}, "work on for 60 s (limits.ttl_s)"),
    "none": ({**DEADLINE, "limits.ttl_s": 0}, "its pods are told to go"),
    "pods that stay": ({**DEADLINE, "limits.ttl_s": 0, "limits.shutdown": False}, "work on until it is deleted"),
    "a cluster that stays": ({**DEADLINE, "kind": "cluster"}, "a cluster that stays knows none"),
    "a plain Job": ({**DEADLINE, "kind": "job"}, None),
    "no deadline": ({}, None),
}


@pytest.mark.parametrize("what", SAID)
def test_how_long_pods_stay_after_a_deadline_is_said(what: str) -> None:
    settings, line = SAID[what]
    case = Case("train", settings)
    work = work_of("train", case.run(), case.config(), run_verbs=RUN_VERBS)
    said = [caution for caution in cautions(case.config(), work) if "deadline" in caution or "7200 s" in caution]
    assert len(said) == (line is not None)
    assert line is None or line in said[0]


def test_what_is_said_to_end_it_at_the_deadline_is_what_the_operator_reads() -> None:
    spec = ray_job_spec(Case("train", {**DEADLINE, "limits.ttl_s": 0}).documents()[-1])
    assert spec["activeDeadlineSeconds"] == 7200
    assert (spec["shutdownAfterJobFinishes"], spec["ttlSecondsAfterFinished"]) == (True, 0)
    job = Case("train", {**DEADLINE, "kind": "job"}).documents()[-1]["spec"]
    assert job["activeDeadlineSeconds"] == 7200
