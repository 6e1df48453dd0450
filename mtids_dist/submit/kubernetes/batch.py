"""The plain Job of one pod."""

from __future__ import annotations

from kubernetes.client import (
    V1Job,
    V1JobSpec,
    V1ObjectMeta,
    V1PodFailurePolicy,
    V1PodFailurePolicyOnExitCodesRequirement,
    V1PodFailurePolicyOnPodConditionsPattern,
    V1PodFailurePolicyRule,
)

from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.config import ManifestConfig
from mtids_dist.submit.kubernetes.labels import Named
from mtids_dist.submit.kubernetes.names import LABEL, is_dns_label
from mtids_dist.submit.kubernetes.pods import Pods
from mtids_dist.submit.kubernetes.work import Work


def batch_job(config: ManifestConfig, work: Work, named: Named) -> V1Job:
    """A Job that goes on where its last pod stopped.

    :raises InputError: the name is too long to be a label.
    """
    if not is_dns_label(named.name, longest=LABEL):
        allowed = f"lower-case letters, digits and -, {LABEL} characters at most"
        raise InputError(
            "not a name for a Job", where="--name", found=f"{named.name} ({len(named.name)} characters)", allowed=allowed
        )
    limits = config.limits
    spec = V1JobSpec(
        backoff_limit=limits.retries,
        active_deadline_seconds=limits.deadline_s,
        ttl_seconds_after_finished=limits.ttl_s if limits.shutdown else None,
        suspend=True if config.queue is not None else None,
        pod_failure_policy=V1PodFailurePolicy(rules=_rules()),
        template=Pods(config, work, named).job(),
    )
    metadata = V1ObjectMeta(name=named.name, namespace=config.namespace, labels=named.work())
    return V1Job(api_version="batch/v1", kind="Job", metadata=metadata, spec=spec)


def _rules() -> list[V1PodFailurePolicyRule]:
    """A pod that was moved away counts for nothing; bad input is bad however often it is tried."""
    moved = V1PodFailurePolicyOnPodConditionsPattern(type="DisruptionTarget", status="True")
    refused = V1PodFailurePolicyOnExitCodesRequirement(container_name="work", operator="In", values=[InputError.exit_code])
    return [
        V1PodFailurePolicyRule(action="Ignore", on_pod_conditions=[moved]),
        V1PodFailurePolicyRule(action="FailJob", on_exit_codes=refused),
    ]
