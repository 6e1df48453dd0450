"""What a manifest needs beside the run: where it goes, what it runs on, what it mounts, who may talk to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mtids_dist.settings import Settings
from mtids_dist.submit.kubernetes.cron import Schedule, TimeZone
from mtids_dist.submit.kubernetes.names import Image, LabelKey, LabelValue, Namespace, ObjectName, PlainPath
from mtids_dist.submit.kubernetes.places import Bucket, Claim, Place
from mtids_dist.submit.kubernetes.quantities import Cidr, Interface, Memory, NotNegative, Port, Positive


class Kind(str, Enum):
    """What is rendered."""

    RAYJOB = "rayjob"
    CLUSTER = "cluster"
    JOB = "job"


class Submission(str, Enum):
    """Who hands the job to Ray: a pod of its own, or a container that the operator adds to the head."""

    K8S = "k8s"
    SIDECAR = "sidecar"


class Toleration(Settings):
    """A taint that pods may be placed in spite of."""

    key: LabelKey | None = None
    """None: every key."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """Exists | Equal"""
    value: LabelValue | None = None
    """Only with Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """None: every effect."""


class Head(Settings):
    """The head: driver, dashboard, no tasks."""

    cpus: Positive = 2
    """CPU cores."""
    memory: Memory = "8Gi"
    """Memory, 1Gi at least: Ray's own processes need it. Up to 30 % of it is Ray's object store."""
    node_selector: Mapping[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that its node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that it may be placed in spite of."""


def _span(value: Any) -> Any:
    """`MIN:MAX` as two numbers."""
    if not isinstance(value, str):
        return value
    fewest, colon, most = value.partition(":")
    if not (colon and fewest.isdigit() and most.isdigit()):
        raise ValueError("not MIN:MAX, for example 0:4")
    return int(fewest), int(most)


class Workers(Head):
    """One group of equal workers."""

    count: NotNegative | None = None
    """Pods. None: as many as the run has ranks, or one."""
    autoscale: Annotated[tuple[NotNegative, NotNegative] | None, BeforeValidator(_span)] = None
    """Fewest and most pods that Ray's own autoscaler keeps. None: a fixed size."""
    cpus: Positive = 4
    """CPU cores of a pod."""
    memory: Memory = "16Gi"
    """Memory of a pod."""
    gpus: NotNegative = 0
    """GPUs of a pod (nvidia.com/gpu)."""


class CpuWorkers(Head):
    """A second group, without GPUs, that reads data for the first."""

    count: NotNegative = 0
    """Pods."""


class Limits(Settings):
    """When it ends, and how."""

    deadline_s: Positive | None = None
    """Seconds from its start until it has failed and is not begun again. None: never. A plain Job's pod is ended then; a RayJob's
    pods work on for ttl_s, or for good without shutdown; a cluster that stays knows no deadline."""
    start_s: Positive = 1800
    """Seconds until pods have to be up."""
    ttl_s: NotNegative = 600
    """Seconds that the pods of a job stay when it has finished or failed, or is past its deadline. 0: they go at once."""
    shutdown: bool = True
    """Whether the pods of a finished job go away at all."""
    retries: NotNegative = 3
    """How often a failed job is begun again, on a new cluster; it goes on from its last checkpoint."""
    grace_s: Annotated[Positive, Field(ge=60)] = 300
    """Seconds that a pod has to leave: the time to write a checkpoint in."""


class Network(Settings):
    """Interfaces, time-outs and who may connect."""

    interface: Interface = "eth0"
    """The interface that ranks talk over."""
    timeout_s: Positive = 1800
    """Seconds that a rank waits for another."""
    operator_namespace: Namespace = "kuberay-operator"
    """Where the operator lives: it asks the head how the job is."""
    monitoring_namespace: Namespace | None = None
    """Where Prometheus lives. None: nobody reads the metrics ports from outside."""
    bucket_ports: Annotated[tuple[Port, ...], Field(min_length=1)] = (443,)
    """TCP ports that the pod of an s3:// storage may reach, anywhere: those of AWS_ENDPOINT_URL, for example 9000 of MinIO."""
    api_server_cidr: Cidr | None = None
    """Where the API server's endpoints are, for example 10.0.0.1/32 (not its Service's address). None: with autoscaling, 443 and
    6443 of anywhere may be reached."""


class Identity(Settings):
    """Whom processes run as, and what they are given."""

    user: Positive = 1000
    """User id, which owns what is written to the storage."""
    group: Positive = 1000
    """Group id."""
    service_account: ObjectName | None = None
    """An account that exists. None: one of its own, without rights."""
    pull_secret: ObjectName | None = None
    """Secret that the image is pulled with."""
    storage_secret: ObjectName | None = None
    """Secret whose keys become the environment of the container that copies to an s3:// storage (AWS_ACCESS_KEY_ID, ...)."""


class Cron(Settings):
    """When a RayCronJob starts one."""

    schedule: Schedule
    """Five fields, or @daily and the like."""
    time_zone: TimeZone | None = None
    """For example Europe/Berlin. None: the operator's."""
    alpha: bool = False
    """RayCronJob is behind an alpha gate of the operator that is off by default: say that you turned it on."""


class ManifestConfig(Settings):
    """Everything about a manifest that is not the run's."""

    kind: Kind = Kind.RAYJOB
    """rayjob | cluster (a RayCluster that stays) | job (one pod, no KubeRay)"""
    name: str | None = None
    """None: made of the verb and the run folder."""
    namespace: Namespace = "mtids-dist"
    """Must exist."""
    image: Image
    """With this package in it: name@sha256:... of cluster/Containerfile."""
    ray_version: str | None = None
    """Ray in the image. None: the version installed here."""
    submission: Submission = Submission.K8S
    """k8s | sidecar"""
    storage: Place
    """pvc:NAME, where run folders live; relative paths of the run are below it. With kind job also s3://BUCKET/PREFIX."""
    archive: Claim | None = None
    """pvc:NAME[/SUBPATH] with the DICOM archive, mounted read-only."""
    nodes: PlainPath = "nodes.csv"
    """The node table, in the archive: relative to it, or below /mnt/archive."""
    store: Claim | None = None
    """pvc:NAME[/SUBPATH] with the store. None: data.store is below the storage."""
    workers: Workers = Workers()
    """The pods that ranks, members and Ray Data's tasks run in."""
    cpu_workers: CpuWorkers = CpuWorkers()
    """More pods without GPUs, for Ray Data's tasks."""
    head: Head = Head()
    """The head."""
    queue: LabelValue | None = None
    """Kueue's LocalQueue."""
    priority: LabelValue | None = None
    """Kueue's WorkloadPriorityClass."""
    limits: Limits = Limits()
    """When it ends, and how."""
    network: Network = Network()
    """Interfaces, time-outs and who may connect."""
    identity: Identity = Identity()
    """Whom processes run as, and what they are given."""
    cron: Cron | None = None
    """Starts the job again and again (RayCronJob)."""

    @model_validator(mode="after")
    def _bucket_belongs_to_one_pod(self) -> ManifestConfig:
        if isinstance(self.storage, Bucket) and self.kind is not Kind.JOB:
            raise ValueError(
                "storage: a run folder is files that every node appends to and renames, which an object store can't: "
                "name a claim of a shared file system (pvc:NAME on NFS, CephFS, or JuiceFS over the bucket), or kind job, "
                "which copies the run folder to the bucket"
            )
        return self
