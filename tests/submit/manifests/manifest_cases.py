"""Manifests of every shape, the schemas that they have to pass, and what KubeRay makes of them."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from mtids_dist.config import RunConfig, load_run
from mtids_dist.submit.kubernetes import ManifestConfig, read_settings, render

ROOT = Path(__file__).parents[3]
KUBE = ROOT.parent / "shared" / "kube"
KUBERNETES = "1.37"
RUN_VERBS = ("train", "tune")
IMAGE = "registry.example/mtids-dist@sha256:" + "0" * 64

needs_schemas = pytest.mark.skipif(not KUBE.exists(), reason="no ../shared/kube with KubeRay's CRDs")


@dataclass(frozen=True)
class Case:
    """One manifest: a verb and the settings that differ from the smallest manifest."""

    verb: str
    settings: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join([self.verb, *(f"{key}={value}" for key, value in self.settings.items())])

    def config(self, **more: Any) -> ManifestConfig:
        smallest = {"image": IMAGE, "storage": "pvc:mtids-dist", "ray_version": "2.60.0"}
        if self.verb == "prepare":
            smallest["archive"] = "pvc:dicom/ct"
        return read_settings(None, [], {**smallest, **self.settings, **more})

    def run(self) -> RunConfig:
        return run_of(self.overrides)

    def documents(self, **more: Any) -> list[dict[str, Any]]:
        return render(self.verb, self.run(), self.config(**more), run_verbs=RUN_VERBS)[1]


@cache
def run_of(overrides: tuple[str, ...]) -> RunConfig:
    """The full run description, on two workers."""
    return load_run(ROOT / "configs" / "mtids.yaml", ["train.scale.workers=2", *overrides])


AUTOSCALE = ({}, {"workers.autoscale": "1:4"})
QUEUE = ({}, {"queue": "gpu-queue", "priority": "high"})
STORES = ({}, {"store": "pvc:stores/lidc"})
SUBMISSION = ({}, {"submission": "sidecar"})


def hardware(verb: str) -> tuple[dict[str, Any], ...]:
    """Only what trains has work for a GPU."""
    return ({}, {"workers.gpus": 2, "cpu_workers.count": 1}) if verb in RUN_VERBS else ({},)


def grid() -> Iterator[Case]:
    """Verbs x hardware x autoscaling x Kueue x storage x submission, also what Kueue forbids."""
    for verb in ("prepare", "train", "tune", "evaluate"):
        for parts in itertools.product(hardware(verb), AUTOSCALE, QUEUE, STORES, SUBMISSION):
            yield Case(verb, {key: value for part in parts for key, value in part.items()})


def forbidden(case: Case) -> bool:
    """Kueue and Ray's own autoscaler exclude each other."""
    return "queue" in case.settings and "workers.autoscale" in case.settings


def other_kinds() -> Iterator[Case]:
    """Clusters that stay, plain Jobs, jobs that come again."""
    bucket = {"kind": "job", "storage": "s3://bucket/runs", "store": "pvc:stores/lidc", "identity.storage_secret": "s3"}
    for verb in ("prepare", "train", "tune", "evaluate"):
        for gpus, queue in itertools.product(hardware(verb), QUEUE):
            gpu = {key: value for key, value in gpus.items() if key == "workers.gpus"}
            yield Case(verb, {"kind": "cluster", **gpus, **queue})
            yield Case(verb, {"kind": "job", **gpu, **queue})
            yield Case(verb, {**bucket, **gpu, **queue})
        yield Case(verb, {"kind": "cluster", "workers.autoscale": "0:3"})
        yield Case(verb, {"cron.schedule": "0 3 * * 1-5", "cron.time_zone": "Europe/Berlin", "cron.alpha": True})


def allowed_cases() -> list[Case]:
    """Everything that renders."""
    return [*(case for case in grid() if not forbidden(case)), *other_kinds()]


@cache
def crd_validators() -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) -> strict validator, from KubeRay's CRDs."""
    spec = importlib.util.spec_from_file_location("crd_schema", KUBE / "crd_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {key: validator for key, (validator, _) in module.load(os.fspath(KUBE / "crds" / "*.yaml")).items()}


def complaints(document: dict[str, Any]) -> list[str]:
    """What the strict schema of its kind has against a document."""
    key = (document["apiVersion"], document["kind"])
    if key[0].startswith("ray.io/"):
        return [f"{list(e.absolute_path)}: {e.message}" for e in crd_validators()[key].iter_errors(document)]
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def ray_job_spec(document: dict[str, Any]) -> dict[str, Any]:
    """The spec of a RayJob, also inside a RayCronJob."""
    return document["spec"]["jobTemplate"] if document["kind"] == "RayCronJob" else document["spec"]


def cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    """The Ray cluster in any kind that has one."""
    return document["spec"] if document["kind"] == "RayCluster" else ray_job_spec(document)["rayClusterSpec"]


def templates(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Role -> pod template."""
    if document["kind"] == "Job":
        return {"job": document["spec"]["template"]}
    cluster = cluster_spec(document)
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    if document["kind"] != "RayCluster" and "submitterPodTemplate" in ray_job_spec(document):
        found["submitter"] = ray_job_spec(document)["submitterPodTemplate"]
    return found


def as_the_operator_makes_them(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Role -> pod spec with what KubeRay 1.7 adds: wait-gcs-ready, the autoscaler, the submitter of sidecar mode."""
    pods = {role: copy.deepcopy(template["spec"]) for role, template in templates(document).items()}
    if document["kind"] == "Job":
        return pods
    cluster = cluster_spec(document)
    for group in cluster["workerGroupSpecs"]:
        work = pods[group["groupName"]]["containers"][0]
        waits = {key: work[key] for key in ("image", "securityContext", "volumeMounts")}
        pods[group["groupName"]].setdefault("initContainers", []).append({"name": "wait-gcs-ready", **waits})
    if cluster["enableInTreeAutoscaling"]:
        options = cluster["autoscalerOptions"]
        mounts = [*options["volumeMounts"], {"name": "ray-logs", "mountPath": "/tmp/ray"}]
        scaler = {"name": "autoscaler", "securityContext": options["securityContext"], "volumeMounts": mounts}
        pods["head"]["containers"].append(scaler)
    if document["kind"] != "RayCluster" and ray_job_spec(document)["submissionMode"] == "SidecarMode":
        pods["head"]["containers"].append({"name": "ray-job-submitter"})
    return pods


def unrestricted(pod: dict[str, Any]) -> list[str]:
    """What the `restricted` Pod Security level has against a pod spec."""
    found = [f"pod: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    found += [f"volume {volume['name']}" for volume in pod.get("volumes", []) if not set(volume) - {"name"} <= kinds]
    of_pod = pod.get("securityContext", {})
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        own = container.get("securityContext", {})
        good = {
            "runAsNonRoot": own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is True,
            "runAsUser": own.get("runAsUser", of_pod.get("runAsUser", 1)) != 0,
            "seccompProfile": own.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") == "RuntimeDefault",
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": own.get("capabilities", {}) == {"drop": ["ALL"]},
            "privileged": not own.get("privileged"),
        }
        found += [f"{container['name']}: {rule}" for rule, holds in good.items() if not holds]
    return found
