"""The parts of ray.io/v1 (KubeRay 1.7) that manifests use, as frozen objects; pods are the Kubernetes client's own models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from kubernetes.client import V1ObjectMeta, V1PodTemplateSpec, V1ResourceRequirements, V1SecurityContext, V1VolumeMount
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class RayObject(BaseModel):
    """Frozen, keyword-only; written in camelCase, what is None is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True)

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set, by their names in the API; what is in them is left as it is."""
        pairs = {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}
        return {name: value for name, value in pairs.items() if value is not None}


class AuthOptions(RayObject):
    """How whoever talks to the cluster shows that he may."""

    mode: Literal["token", "disabled"] = "token"


class AutoscalerOptions(RayObject):
    """The container that the operator adds to the head."""

    version: Literal["v1", "v2"] = "v2"
    idle_timeout_seconds: int | None = None
    resources: V1ResourceRequirements | None = None
    security_context: V1SecurityContext | None = None
    volume_mounts: list[V1VolumeMount] | None = None


class HeadGroupSpec(RayObject):
    """The head."""

    service_type: Literal["ClusterIP"] = "ClusterIP"
    ray_start_params: Mapping[str, str]
    template: V1PodTemplateSpec


class WorkerGroupSpec(RayObject):
    """Equal workers."""

    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: Mapping[str, str]
    template: V1PodTemplateSpec


class RayClusterSpec(RayObject):
    """One Ray cluster."""

    ray_version: str
    auth_options: AuthOptions = AuthOptions()
    suspend: bool | None = None
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: AutoscalerOptions | None = None
    head_group_spec: HeadGroupSpec
    worker_group_specs: list[WorkerGroupSpec]


class SubmitterConfig(RayObject):
    """How the pod that submits is tried again."""

    backoff_limit: int


class RayJobSpec(RayObject):
    """One job, with the cluster made for it."""

    entrypoint: str
    entrypoint_num_cpus: float | None = None
    submission_mode: Literal["K8sJobMode", "SidecarMode"]
    submitter_config: SubmitterConfig | None = None
    submitter_pod_template: V1PodTemplateSpec | None = None
    metadata: Mapping[str, str] | None = None
    backoff_limit: int
    active_deadline_seconds: int | None = None
    pre_running_deadline_seconds: int | None = None
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int | None = None
    suspend: bool | None = None
    cluster_selector: Mapping[str, str] | None = None
    ray_cluster_spec: RayClusterSpec | None = None


class RayCronJobSpec(RayObject):
    """When to make a RayJob, and which."""

    schedule: str
    time_zone: str | None = None
    job_template: RayJobSpec


class RayCluster(RayObject):
    """A cluster that stays."""

    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayCluster"] = "RayCluster"
    metadata: V1ObjectMeta
    spec: RayClusterSpec


class RayJob(RayObject):
    """A job."""

    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayJob"] = "RayJob"
    metadata: V1ObjectMeta
    spec: RayJobSpec


class RayCronJob(RayObject):
    """A job again and again; behind the operator's alpha gate RayCronJob."""

    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayCronJob"] = "RayCronJob"
    metadata: V1ObjectMeta
    spec: RayCronJobSpec
