"""What KubeRay's operator refuses though the schema lets it pass (v1.7.0, `controllers/ray/utils/validation.go`), and Kueue."""

from __future__ import annotations

import re

from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.names import LABEL, RAYCLUSTER_NAME, RAYCRONJOB_NAME, RAYJOB_NAME, is_dns_label
from mtids_dist.submit.kubernetes.ray_v1 import RayCluster, RayClusterSpec, RayCronJob, RayJob, RayJobSpec, WorkerGroupSpec

OLDEST_RAY = (2, 53, 0)
"""Tokens came with 2.52; before 2.53 the operator's probes call wget in the pods, which a slim image has not."""
CLUSTER_SELECTOR = "ray.io/cluster"
QUEUE = "kueue.x-k8s.io/queue-name"
LONGEST = {"RayJob": RAYJOB_NAME, "RayCluster": RAYCLUSTER_NAME, "RayCronJob": RAYCRONJOB_NAME}
MOST_POD_SETS = 8
"""Kueue's: the head and the worker groups of one workload."""


def check_ray_object(obj: RayJob | RayCluster | RayCronJob) -> None:
    """Refuses what the operator would.

    :raises InputError: the first rule that is broken.
    """
    name = obj.metadata.name or ""
    if not is_dns_label(name, letter_first=True, longest=LONGEST[obj.kind]):
        allowed = f"a letter, then lower-case letters, digits and -, {LONGEST[obj.kind]} characters at most"
        raise InputError(
            f"not a name for a {obj.kind}", where="--name", found=f"{name} ({len(name)} characters)", allowed=allowed
        )
    queued = QUEUE in (obj.metadata.labels or {})
    if isinstance(obj, RayCronJob):
        _check_job(obj.spec.job_template, queued=queued)
        if queued:
            raise InputError("the operator gives a RayCronJob's jobs no labels, so Kueue would never see them", where="--queue")
    elif isinstance(obj, RayJob):
        _check_job(obj.spec, queued=queued)
    else:
        _check_cluster(obj.spec, queued=queued)


def _check_job(spec: RayJobSpec, *, queued: bool) -> None:
    _check_ends(spec)
    if (spec.ray_cluster_spec is None) == (not spec.cluster_selector):
        raise InputError("exactly one of rayClusterSpec and clusterSelector", where="RayJob")
    if spec.cluster_selector:
        _check_selector(spec)
    if spec.submission_mode == "SidecarMode" and (spec.submitter_pod_template or spec.submitter_config):
        raise InputError("the operator's own container submits: it takes no pod template and no submitterConfig", where="sidecar")
    if spec.suspend and not spec.shutdown_after_job_finishes:
        raise InputError("a queued job has to give its pods back when it has finished", where="limits.shutdown", found="false")
    if spec.ray_cluster_spec is not None:
        _check_cluster(spec.ray_cluster_spec, queued=queued)


def _check_ends(spec: RayJobSpec) -> None:
    if spec.ttl_seconds_after_finished and not spec.shutdown_after_job_finishes:
        found = f"ttl_s {spec.ttl_seconds_after_finished}, shutdown false"
        raise InputError("pods that stay for good have no time to live", where="limits", found=found, allowed="ttl_s 0")
    for where, value in (
        ("limits.deadline_s", spec.active_deadline_seconds),
        ("limits.start_s", spec.pre_running_deadline_seconds),
    ):
        if value is not None and value <= 0:
            raise InputError("a deadline is more than 0 s", where=where, found=value)
    if (spec.ttl_seconds_after_finished or 0) < 0 or spec.backoff_limit < 0:
        raise InputError("less than 0", where="limits", found=f"ttl_s {spec.ttl_seconds_after_finished}, {spec.backoff_limit}")


def _check_selector(spec: RayJobSpec) -> None:
    if not (spec.cluster_selector or {}).get(CLUSTER_SELECTOR):
        raise InputError(f"clusterSelector names no cluster ({CLUSTER_SELECTOR})", where="RayJob")
    for wrong, what in (
        (spec.submission_mode == "SidecarMode", "submit as a sidecar"),
        (bool(spec.backoff_limit), "be tried again (backoffLimit)"),
        (bool(spec.suspend), "be suspended"),
    ):
        if wrong:
            raise InputError(f"a job on a cluster that exists can't {what}", where="clusterSelector")


def _check_cluster(spec: RayClusterSpec, *, queued: bool) -> None:
    if spec.auth_options.mode == "token":
        _check_version(spec.ray_version)
    names = [group.group_name for group in spec.worker_group_specs]
    if len(set(names)) != len(names):
        raise InputError("two worker groups of one name", where="workers", found=", ".join(names))
    for group in spec.worker_group_specs:
        _check_group(group)
    if queued and spec.enable_in_tree_autoscaling:
        raise InputError(
            "Kueue reserves the whole cluster when it admits it, so it can't grow: Kueue refuses Ray's own autoscaling",
            where="--queue with --autoscale",
            allowed="one of the two; with a queue --workers N",
        )
    if queued and 1 + len(names) > MOST_POD_SETS:
        raise InputError(
            "too many groups for one Kueue workload", where="workers", found=1 + len(names), allowed="8 with the head"
        )


def _check_group(group: WorkerGroupSpec) -> None:
    if not is_dns_label(group.group_name, longest=LABEL):
        raise InputError("not a name for a worker group", where="workers", found=group.group_name)
    if not 0 <= group.min_replicas <= group.replicas <= group.max_replicas:
        found = f"{group.min_replicas}, {group.replicas}, {group.max_replicas}"
        raise InputError("a group's pods: 0 <= fewest <= now <= most", where=f"worker group {group.group_name}", found=found)


def _check_version(ray_version: str) -> None:
    match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)[A-Za-z0-9.+-]*", ray_version)
    if match is None:
        raise InputError("not a Ray version", where="ray_version", found=ray_version, allowed="for example 2.60.0")
    if tuple(int(part) for part in match.groups()) < OLDEST_RAY:
        what = "this Ray knows no tokens, or the operator probes its pods with wget, which the image has not"
        raise InputError(what, where="ray_version", found=ray_version, allowed="2.53.0 or later")
