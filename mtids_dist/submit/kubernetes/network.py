"""Who may connect to the pods of one manifest, and where these may go: each other, name servers, and little else."""

from __future__ import annotations

from collections.abc import Sequence

from kubernetes.client import (
    V1IPBlock,
    V1LabelSelector,
    V1NetworkPolicy,
    V1NetworkPolicyEgressRule,
    V1NetworkPolicyIngressRule,
    V1NetworkPolicyPeer,
    V1NetworkPolicyPort,
    V1NetworkPolicySpec,
    V1ObjectMeta,
)

from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig
from mtids_dist.submit.kubernetes.labels import Named
from mtids_dist.submit.kubernetes.pods import HEAD_PORTS
from mtids_dist.submit.kubernetes.work import Work, copies_to_bucket

DASHBOARD = HEAD_PORTS["dashboard"]
METRICS = tuple(HEAD_PORTS[name] for name in ("metrics", "as-metrics", "dash-metrics"))
API_SERVER = (443, 6443)
OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}
"""Label of the operator's pod, by its Helm chart and its kustomization."""


def network_policy(config: ManifestConfig, work: Work, named: Named) -> V1NetworkPolicy:
    """A plain policy: the operator's own (spec.networkPolicy) is behind an alpha gate."""
    spec = V1NetworkPolicySpec(
        pod_selector=V1LabelSelector(match_labels=named.selector),
        policy_types=["Ingress", "Egress"],
        ingress=_ingress(config, named),
        egress=_egress(config, work, named),
    )
    metadata = V1ObjectMeta(name=named.name, namespace=config.namespace, labels=named.labels())
    return V1NetworkPolicy(api_version="networking.k8s.io/v1", kind="NetworkPolicy", metadata=metadata, spec=spec)


def _ingress(config: ManifestConfig, named: Named) -> list[V1NetworkPolicyIngressRule]:
    if config.kind is Kind.JOB:
        return []
    network = config.network
    operator = _pods_of(network.operator_namespace, OPERATOR)
    rules = [_from([_siblings(named)]), _from([operator], ports=(DASHBOARD,))]
    if network.monitoring_namespace is not None:
        rules.append(_from([_pods_of(network.monitoring_namespace)], ports=METRICS))
    return rules


def _egress(config: ManifestConfig, work: Work, named: Named) -> list[V1NetworkPolicyEgressRule]:
    names = [V1NetworkPolicyPort(port=53, protocol=protocol) for protocol in ("UDP", "TCP")]
    rules = [V1NetworkPolicyEgressRule(to=[V1NetworkPolicyPeer(namespace_selector=V1LabelSelector())], ports=names)]
    if config.kind is not Kind.JOB:
        rules.append(V1NetworkPolicyEgressRule(to=[_siblings(named)]))
    if config.workers.autoscale is not None:
        rules.append(V1NetworkPolicyEgressRule(to=_api_server(config), ports=_tcp(API_SERVER)))
    if copies_to_bucket(config, work):
        rules.append(V1NetworkPolicyEgressRule(ports=_tcp(config.network.bucket_ports)))
    return rules


def _api_server(config: ManifestConfig) -> list[V1NetworkPolicyPeer] | None:
    """None: anywhere."""
    cidr = config.network.api_server_cidr
    return None if cidr is None else [V1NetworkPolicyPeer(ip_block=V1IPBlock(cidr=cidr))]


def _siblings(named: Named) -> V1NetworkPolicyPeer:
    return V1NetworkPolicyPeer(pod_selector=V1LabelSelector(match_labels=named.selector))


def _pods_of(namespace: str, labels: dict[str, str] | None = None) -> V1NetworkPolicyPeer:
    return V1NetworkPolicyPeer(
        namespace_selector=V1LabelSelector(match_labels={"kubernetes.io/metadata.name": namespace}),
        pod_selector=V1LabelSelector(match_labels=labels) if labels else None,
    )


def _from(peers: list[V1NetworkPolicyPeer], *, ports: Sequence[int] = ()) -> V1NetworkPolicyIngressRule:
    # mypy knows it as var_from; given by that name it is dropped in silence, and the rule lets everybody in.
    return V1NetworkPolicyIngressRule(_from=peers, ports=_tcp(ports) or None)  # type: ignore[call-arg]


def _tcp(ports: Sequence[int]) -> list[V1NetworkPolicyPort]:
    return [V1NetworkPolicyPort(port=port, protocol="TCP") for port in ports]
