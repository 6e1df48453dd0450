"""RayJob, RayCronJob and RayCluster."""

from __future__ import annotations

from kubernetes.client import V1ObjectMeta, V1VolumeMount

from mtids_dist.submit.kubernetes.autoscaler import TOKEN_MOUNT, token_volume
from mtids_dist.submit.kubernetes.config import Head, ManifestConfig, Submission
from mtids_dist.submit.kubernetes.containers import resources
from mtids_dist.submit.kubernetes.labels import Named
from mtids_dist.submit.kubernetes.pods import Pods
from mtids_dist.submit.kubernetes.ray_v1 import (
    AutoscalerOptions,
    HeadGroupSpec,
    RayCluster,
    RayClusterSpec,
    RayCronJob,
    RayCronJobSpec,
    RayJob,
    RayJobSpec,
    SubmitterConfig,
    WorkerGroupSpec,
)
from mtids_dist.submit.kubernetes.security import container_security
from mtids_dist.submit.kubernetes.volumes import TMP
from mtids_dist.submit.kubernetes.work import Work, pods

SUBMITTER_RETRIES = 2
IDLE_S = 300
"""Seconds that a pod without work stays, where the autoscaler decides."""


def ray_job(config: ManifestConfig, work: Work, named: Named) -> RayJob | RayCronJob:
    """The job, or with a schedule the job again and again."""
    metadata = V1ObjectMeta(name=named.name, namespace=config.namespace, labels=named.work())
    spec = _job_spec(config, work, named)
    if config.cron is None:
        return RayJob(metadata=metadata, spec=spec)
    cron = RayCronJobSpec(schedule=config.cron.schedule, time_zone=config.cron.time_zone, job_template=spec)
    return RayCronJob(metadata=metadata, spec=cron)


def ray_cluster(config: ManifestConfig, work: Work, named: Named) -> RayCluster:
    """A cluster that stays."""
    metadata = V1ObjectMeta(name=named.name, namespace=config.namespace, labels=named.work())
    spec = _cluster_spec(config, work, named)
    return RayCluster(metadata=metadata, spec=spec.model_copy(update={"suspend": _waits(config)}))


def _waits(config: ManifestConfig) -> bool | None:
    """What is queued begins suspended, and Kueue lets it go: without Kueue it would wait, not pass the quota by."""
    return True if config.queue is not None else None


def _job_spec(config: ManifestConfig, work: Work, named: Named) -> RayJobSpec:
    limits, by_pod = config.limits, config.submission is Submission.K8S
    return RayJobSpec(
        entrypoint=" ".join(("python", "-m", "mtids_dist", *work.command)),
        entrypoint_num_cpus=1.0 if work.on_worker else None,
        submission_mode="K8sJobMode" if by_pod else "SidecarMode",
        submitter_config=SubmitterConfig(backoff_limit=SUBMITTER_RETRIES) if by_pod else None,
        submitter_pod_template=Pods(config, work, named).submitter() if by_pod else None,
        metadata={"mtids_dist.verb": work.verb, "mtids_dist.run": str(work.folder)},
        backoff_limit=limits.retries,
        active_deadline_seconds=limits.deadline_s,
        pre_running_deadline_seconds=limits.start_s,
        shutdown_after_job_finishes=limits.shutdown,
        ttl_seconds_after_finished=limits.ttl_s if limits.shutdown or limits.ttl_s else None,
        suspend=_waits(config),
        ray_cluster_spec=_cluster_spec(config, work, named),
    )


def _cluster_spec(config: ManifestConfig, work: Work, named: Named) -> RayClusterSpec:
    templates, grows = Pods(config, work, named), config.workers.autoscale is not None
    head = templates.head(token_volume()) if grows else templates.head()
    assert config.ray_version is not None
    return RayClusterSpec(
        ray_version=config.ray_version,
        enable_in_tree_autoscaling=grows,
        autoscaler_options=_autoscaler() if grows else None,
        head_group_spec=HeadGroupSpec(ray_start_params={"num-cpus": "0", "dashboard-host": "0.0.0.0"}, template=head),  # noqa: S104
        worker_group_specs=_groups(config, work, templates),
    )


def _groups(config: ManifestConfig, work: Work, templates: Pods) -> list[WorkerGroupSpec]:
    workers, more = config.workers, config.cpu_workers
    most = pods(config, work.ranks)
    fewest = workers.autoscale[0] if workers.autoscale is not None else most
    groups = [_group("gpu" if workers.gpus else "cpu", workers, templates, fewest=fewest, most=most)]
    if more.count:
        groups.append(_group("data", more, templates, fewest=more.count, most=more.count))
    return groups


def _group(name: str, size: Head, templates: Pods, *, fewest: int, most: int) -> WorkerGroupSpec:
    return WorkerGroupSpec(
        group_name=name,
        replicas=fewest,
        min_replicas=fewest,
        max_replicas=most,
        ray_start_params={},
        template=templates.workers(size, name),
    )


def _autoscaler() -> AutoscalerOptions:
    """The one container that may ask the API server for pods; the work beside it has no token."""
    return AutoscalerOptions(
        idle_timeout_seconds=IDLE_S,
        resources=resources("500m", "1Gi"),
        security_context=container_security(),
        volume_mounts=[V1VolumeMount(name="tmp", mount_path=TMP), TOKEN_MOUNT],
    )
