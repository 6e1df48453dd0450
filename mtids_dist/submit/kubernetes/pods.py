"""Pods: the head, a group of workers, the submitter, or the one pod of a plain Job."""

from __future__ import annotations

from collections.abc import Sequence

from kubernetes.client import (
    V1Container,
    V1LocalObjectReference,
    V1ObjectMeta,
    V1PodSpec,
    V1PodTemplateSpec,
    V1Toleration,
    V1Volume,
)

from mtids_dist.submit.kubernetes.config import Head, Kind, ManifestConfig, Toleration, Workers
from mtids_dist.submit.kubernetes.containers import GPU, bucket_copiers, log_keeper, submit_container, work_container
from mtids_dist.submit.kubernetes.labels import Named
from mtids_dist.submit.kubernetes.places import Bucket
from mtids_dist.submit.kubernetes.security import pod_security
from mtids_dist.submit.kubernetes.volumes import data_volumes, run_volume, scratch_volumes, volumes_of
from mtids_dist.submit.kubernetes.work import Work, copies_to_bucket

HEAD_PORTS = {
    "gcs-server": 6379,
    "dashboard": 8265,
    "client": 10001,
    "metrics": 8080,
    "as-metrics": 44217,
    "dash-metrics": 44227,
}
WORKER_PORTS = {"metrics": 8080}


class Pods:
    """The pod templates of one manifest."""

    def __init__(self, config: ManifestConfig, work: Work, named: Named) -> None:
        self._config, self._work, self._named = config, work, named
        self._data = data_volumes(config, work)

    def head(self, *more: V1Volume) -> V1PodTemplateSpec:
        """Driver and dashboard; it alone reads a job's run description. `more`: volumes of a container that the operator adds."""
        size = self._config.head
        run = [] if self._config.kind is Kind.CLUSTER else [run_volume(self._named.config_map)]
        mounted = [*scratch_volumes(size.memory), *self._data, *run]
        container = work_container("ray-head", size, mounted, self._config, ports=HEAD_PORTS)
        helpers = [log_keeper(mounted, self._config, self._named)]
        return self._pod("head", size, container, helpers, [*volumes_of(mounted), *more])

    def workers(self, group: Head, name: str) -> V1PodTemplateSpec:
        """One of a group of workers."""
        mounted = [*scratch_volumes(group.memory), *self._data]
        container = work_container("ray-worker", group, mounted, self._config, ports=WORKER_PORTS)
        helpers = [log_keeper(mounted, self._config, self._named)]
        return self._pod(f"worker-{name}", group, container, helpers, volumes_of(mounted))

    def submitter(self) -> V1PodTemplateSpec:
        """The operator's own has no securityContext, which a restricted namespace refuses."""
        size = self._config.head
        mounted = scratch_volumes(size.memory)[:1]
        return self._pod("submitter", size, submit_container(mounted, self._config), [], volumes_of(mounted), restart="Never")

    def job(self) -> V1PodTemplateSpec:
        """All in one pod: a private Ray, no network."""
        size = self._config.workers
        mounted = [*scratch_volumes(size.memory), *self._data, run_volume(self._named.config_map)]
        container = work_container("work", size, mounted, self._config, ports={})
        container.command = ["python", "-m", "mtids_dist", *self._work.command]
        helpers = []
        if copies_to_bucket(self._config, self._work):
            helpers = bucket_copiers(mounted, self._config, self._work)
        elif not isinstance(self._config.storage, Bucket):
            helpers = [log_keeper(mounted, self._config, self._named)]
        return self._pod("job", size, container, helpers, volumes_of(mounted), restart="Never")

    def _pod(
        self,
        component: str,
        size: Head,
        container: V1Container,
        helpers: Sequence[V1Container],
        volumes: list[V1Volume],
        *,
        restart: str | None = None,
    ) -> V1PodTemplateSpec:
        identity = self._config.identity
        secrets = [V1LocalObjectReference(name=identity.pull_secret)] if identity.pull_secret else None
        spec = V1PodSpec(
            service_account_name=self._named.account,
            automount_service_account_token=False,
            restart_policy=restart,
            security_context=pod_security(identity),
            termination_grace_period_seconds=self._config.limits.grace_s,
            image_pull_secrets=secrets,
            node_selector=dict(size.node_selector) or None,
            tolerations=_tolerations(size) or None,
            init_containers=[*helpers] or None,
            containers=[container],
            volumes=volumes,
        )
        return V1PodTemplateSpec(metadata=V1ObjectMeta(labels=self._named.labels(component)), spec=spec)


def _tolerations(size: Head) -> list[V1Toleration]:
    """GPU nodes keep others away by this taint."""
    gpu = (Toleration(key=GPU, effect="NoSchedule"),) if isinstance(size, Workers) and size.gpus else ()
    return [
        V1Toleration(key=t.key, operator=t.operator, value=t.value, effect=t.effect)
        for t in dict.fromkeys((*gpu, *size.tolerations))
    ]
