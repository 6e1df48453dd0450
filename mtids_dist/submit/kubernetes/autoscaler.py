"""The account token of Ray's autoscaler, mounted into its container alone instead of into the whole pod."""

from __future__ import annotations

from kubernetes.client import (
    V1ConfigMapProjection,
    V1KeyToPath,
    V1ProjectedVolumeSource,
    V1ServiceAccountTokenProjection,
    V1Volume,
    V1VolumeMount,
    V1VolumeProjection,
)

TOKEN_VOLUME = "autoscaler-token"  # noqa: S105
TOKEN_MOUNT = V1VolumeMount(name=TOKEN_VOLUME, mount_path="/var/run/secrets/kubernetes.io/serviceaccount", read_only=True)
"""Where Ray's KubeRay node provider looks for `token` and `ca.crt`."""
TOKEN_LIFE_S = 3607
"""Kubernetes' own default; the kubelet renews it in time."""


def token_volume() -> V1Volume:
    """What Kubernetes would mount into every container of the pod: the token, and whom to trust."""
    token = V1ServiceAccountTokenProjection(path="token", expiration_seconds=TOKEN_LIFE_S)
    trusted = V1ConfigMapProjection(name="kube-root-ca.crt", items=[V1KeyToPath(key="ca.crt", path="ca.crt")])
    sources = [V1VolumeProjection(service_account_token=token), V1VolumeProjection(config_map=trusted)]
    return V1Volume(name=TOKEN_VOLUME, projected=V1ProjectedVolumeSource(sources=sources))
