"""What an object's status says: how things stand, and whether the work is over and how it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SUCCEEDED, FAILED, REFUSED = 0, 1, 2
_EXIT_CODE = re.compile(r"exit code (\d+)")


@dataclass(frozen=True)
class Standing:
    """How it stands, in a line; with an exit code, that is its end."""

    line: str
    exit_code: int | None = None


def standing(document: Mapping[str, Any]) -> Standing:
    """How a RayJob, RayCluster, Job or anything else stands; what has no status of its own is done once it is there."""
    read = {"RayJob": _ray_job, "RayCluster": _ray_cluster, "Job": _job}.get(document["kind"])
    return read(document.get("status") or {}) if read is not None else Standing("applied", SUCCEEDED)


def _ray_job(status: Mapping[str, Any]) -> Standing:
    deployment, job = status.get("jobDeploymentStatus") or "New", status.get("jobStatus") or ""
    why = " ".join(f"{status.get('reason') or ''} {status.get('message') or ''}".split())
    line = " ".join(part for part in (deployment, job) if part)
    if deployment == "ValidationFailed":
        return Standing(f"the operator refuses it: {why}", REFUSED)
    if deployment == "Failed":
        code = _EXIT_CODE.search(why)
        return Standing(f"{line}: {why}", int(code[1]) if code and int(code[1]) else FAILED)
    if deployment == "Complete":
        return Standing(line if job == "SUCCEEDED" else f"{line}: {why}", SUCCEEDED if job == "SUCCEEDED" else FAILED)
    return Standing(line)


def _ray_cluster(status: Mapping[str, Any]) -> Standing:
    state = status.get("state") or "waiting for its pods"
    if state == "failed":
        return Standing(f"failed: {status.get('reason') or ''}", FAILED)
    return Standing(state, SUCCEEDED if state == "ready" else None)


def _job(status: Mapping[str, Any]) -> Standing:
    for condition in status.get("conditions") or ():
        if condition.get("status") != "True":
            continue
        if condition["type"] == "Complete":
            return Standing("Complete", SUCCEEDED)
        if condition["type"] == "Failed":
            why = " ".join(f"{condition.get('reason') or ''} {condition.get('message') or ''}".split())
            code = _EXIT_CODE.search(why)
            return Standing(f"Failed: {why}", int(code[1]) if code and int(code[1]) else FAILED)
    return Standing(f"{status.get('active') or 0} active, {status.get('failed') or 0} failed")
