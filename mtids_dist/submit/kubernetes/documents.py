"""From settings to objects, and from objects to bytes. Pure: the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any

import yaml
from kubernetes.client import ApiClient, V1ConfigMap, V1ObjectMeta, V1ServiceAccount

from mtids_dist.config import RunConfig
from mtids_dist.submit.kubernetes.batch import batch_job
from mtids_dist.submit.kubernetes.checks import check
from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig
from mtids_dist.submit.kubernetes.labels import Named, named
from mtids_dist.submit.kubernetes.network import network_policy
from mtids_dist.submit.kubernetes.operator_rules import check_ray_object
from mtids_dist.submit.kubernetes.ray_objects import ray_cluster, ray_job
from mtids_dist.submit.kubernetes.work import RUN_FILE, Work, work_of

Document = dict[str, Any]
"""One Kubernetes object as plain data."""


def render(verb: str, run: RunConfig, config: ManifestConfig, *, run_verbs: Collection[str]) -> tuple[Work, list[Document]]:
    """What `verb` will do in the cluster, and every object that it needs, in the order to apply them in.

    :param run_verbs: the verbs whose argument is a run description.
    :raises InputError: what would be refused by the API server, the operator or Kueue, or would never start.
    """
    if config.ray_version is None:
        config = config.model_copy(update={"ray_version": version("ray")})
    work = work_of(verb, run, config, run_verbs=run_verbs)
    check(config, work)
    names = named(config, work)
    main = batch_job(config, work, names) if config.kind is Kind.JOB else _ray_object(config, work, names)
    objects = [_account(config, names), _run_description(config, work, names), network_policy(config, work, names), main]
    with ApiClient() as client:
        return work, [client.sanitize_for_serialization(obj) for obj in objects if obj is not None]


def to_yaml(documents: list[Document]) -> str:
    """A stream of YAML documents; what has several lines stands in a block."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=130)


def _ray_object(config: ManifestConfig, work: Work, names: Named) -> Any:
    obj = ray_cluster(config, work, names) if config.kind is Kind.CLUSTER else ray_job(config, work, names)
    check_ray_object(obj)
    return obj


def _account(config: ManifestConfig, names: Named) -> V1ServiceAccount | None:
    """An account of its own has no rights. With autoscaling the operator gives it those of the autoscaler, in a role of its."""
    if config.identity.service_account is not None:
        return None
    metadata = V1ObjectMeta(name=names.account, namespace=config.namespace, labels=names.labels())
    return V1ServiceAccount(api_version="v1", kind="ServiceAccount", metadata=metadata, automount_service_account_token=False)


def _run_description(config: ManifestConfig, work: Work, names: Named) -> V1ConfigMap | None:
    if config.kind is Kind.CLUSTER:  # its jobs bring their own
        return None
    metadata = V1ObjectMeta(name=names.config_map, namespace=config.namespace, labels=names.labels())
    data = {RUN_FILE.rpartition("/")[2]: work.description}
    return V1ConfigMap(api_version="v1", kind="ConfigMap", metadata=metadata, immutable=True, data=data)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
