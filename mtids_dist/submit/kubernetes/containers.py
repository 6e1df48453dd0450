"""Containers: the work itself, and what helps it in the same pod."""

from __future__ import annotations

from collections.abc import Sequence

from kubernetes.client import (
    V1Container,
    V1ContainerPort,
    V1EnvFromSource,
    V1EnvVar,
    V1EnvVarSource,
    V1ExecAction,
    V1Lifecycle,
    V1LifecycleHandler,
    V1ObjectFieldSelector,
    V1ResourceRequirements,
    V1SecretEnvSource,
)

from mtids_dist.submit.kubernetes.config import Head, Kind, ManifestConfig, Workers
from mtids_dist.submit.kubernetes.labels import Named
from mtids_dist.submit.kubernetes.places import STORAGE
from mtids_dist.submit.kubernetes.security import container_security
from mtids_dist.submit.kubernetes.volumes import SESSION, TMP, Mounted
from mtids_dist.submit.kubernetes.work import Work

GPU = "nvidia.com/gpu"
LEAVE_S = 30
"""What is left of the grace period for all else, once the checkpoint is written."""
IN_POD = "mtids_dist.in_pod"
"""The package of what runs beside the work."""
SMALL = ("100m", "512Mi")
"""CPUs and memory of a helper."""


def work_container(
    name: str, size: Head, mounted: Sequence[Mounted], config: ManifestConfig, *, ports: dict[str, int]
) -> V1Container:
    """Where the work is done, or driven from."""
    gpus = size.gpus if isinstance(size, Workers) else 0
    return V1Container(
        name=name,
        image=config.image,
        env=_environment(_variables(config)),
        ports=[V1ContainerPort(name=port, container_port=number) for port, number in ports.items()] or None,
        resources=resources(str(size.cpus), size.memory, gpus=gpus),
        security_context=container_security(),
        lifecycle=_lifecycle(config),
        volume_mounts=[m.mount for m in mounted],
    )


def submit_container(mounted: Sequence[Mounted], config: ManifestConfig) -> V1Container:
    """Hands the job to Ray and follows its log: the operator gives it its command."""
    return V1Container(
        name="submitter",
        image=config.image,
        env=_environment({"HOME": TMP}),
        resources=resources("500m", "512Mi"),
        security_context=container_security(),
        volume_mounts=[m.mount for m in mounted],
    )


def log_keeper(mounted: Sequence[Mounted], config: ManifestConfig, named: Named) -> V1Container:
    """Copies Ray's logs to the storage while they are written: the pod's own are gone when its time to live is over."""
    command = ["keep_logs", SESSION, f"{STORAGE}/logs/{named.name}"]
    return _helper("log-keeper", command, _only(mounted, TMP, SESSION, STORAGE), config, always=True)


def bucket_copiers(mounted: Sequence[Mounted], config: ManifestConfig, work: Work) -> list[V1Container]:
    """Brings the run folder from the bucket, then takes it there again and again."""
    folder = str(work.folder)
    place = f"{config.storage}/{work.folder.relative_to(STORAGE)}"
    mine = _only(mounted, TMP, STORAGE)
    pull = _helper("bucket-pull", ["bucket", "pull", place, folder], mine, config, always=False)
    push = _helper("bucket-push", ["bucket", "push", folder, place], mine, config, always=True)
    secret = config.identity.storage_secret
    if secret is not None:
        for container in (pull, push):
            container.env_from = [V1EnvFromSource(secret_ref=V1SecretEnvSource(name=secret))]
    return [pull, push]


def resources(cpus: str, memory: str, *, gpus: int = 0) -> V1ResourceRequirements:
    """What a container is promised is also all that it gets."""
    amounts = {"cpu": cpus, "memory": memory, **({GPU: str(gpus)} if gpus else {})}
    return V1ResourceRequirements(requests=amounts, limits=dict(amounts))


def _helper(name: str, command: list[str], mounted: Sequence[Mounted], config: ManifestConfig, *, always: bool) -> V1Container:
    module, *arguments = command
    pod_name = V1EnvVarSource(field_ref=V1ObjectFieldSelector(field_path="metadata.name"))
    return V1Container(
        name=name,
        image=config.image,
        command=["python", "-m", f"{IN_POD}.{module}", *arguments],
        restart_policy="Always" if always else None,
        env=[*_environment({"HOME": TMP}), V1EnvVar(name="POD_NAME", value_from=pod_name)],
        resources=resources(*SMALL),
        security_context=container_security(),
        volume_mounts=[m.mount for m in mounted],
    )


def _only(mounted: Sequence[Mounted], *paths: str) -> list[Mounted]:
    return [m for m in mounted if m.mount.mount_path in paths]


def _variables(config: ManifestConfig) -> dict[str, str]:
    """What every process of the work finds in its environment."""
    network, start_s = config.network, config.limits.start_s
    variables = {
        "HOME": TMP,
        "USER": "mtids-dist",  # an id that /etc/passwd does not know has no name
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if config.kind is Kind.JOB:
        return variables
    return variables | {
        "MTIDS_DIST_ADDRESS": "auto",
        "NCCL_SOCKET_IFNAME": network.interface,
        "GLOO_SOCKET_IFNAME": network.interface,
        "NCCL_DEBUG": "WARN",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": str(network.timeout_s),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": str(network.timeout_s),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(start_s),
        # A RayJob that is deleted is stopped by the operator first; after 3 s Ray would kill it.
        "RAY_JOB_STOP_WAIT_TIME_S": str(_patience_s(config)),
    }


def _patience_s(config: ManifestConfig) -> int:
    """How long a checkpoint may take."""
    return config.limits.grace_s - LEAVE_S


def _lifecycle(config: ManifestConfig) -> V1Lifecycle | None:
    """Runs are asked to write a checkpoint before their pods go; a plain Job's command gets SIGTERM itself."""
    if config.kind is Kind.JOB:
        return None
    command = ["python", "-m", f"{IN_POD}.stop_run", "--seconds", str(_patience_s(config))]
    # Its plugin names it var_exec for mypy; given by that name it is dropped in silence.
    return V1Lifecycle(pre_stop=V1LifecycleHandler(_exec=V1ExecAction(command=command)))  # type: ignore[call-arg]


def _environment(variables: dict[str, str]) -> list[V1EnvVar]:
    return [V1EnvVar(name=name, value=value) for name, value in variables.items()]
