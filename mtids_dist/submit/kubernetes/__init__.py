"""Kubernetes manifests of a run: KubeRay's RayJob, RayCluster and RayCronJob, or a plain Job.

Settings need nothing but pydantic; what needs the Kubernetes client is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.checks import cautions
from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig, Submission
from mtids_dist.submit.kubernetes.settings import read_settings

if TYPE_CHECKING:
    from mtids_dist.submit.kubernetes.documents import render, to_yaml
    from mtids_dist.submit.kubernetes.sending import apply, follow

_LAZY = {"apply": "sending", "follow": "sending", "render": "documents", "to_yaml": "documents"}
"""Name -> the module of this package that has it."""

__all__ = ["Kind", "ManifestConfig", "Submission", "apply", "cautions", "follow", "read_settings", "render", "to_yaml"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kubernetes":
            raise
        raise InputError(
            "the Kubernetes client is not installed", where="manifest", allowed="pip install 'mtids-dist[kubernetes]'"
        ) from None
