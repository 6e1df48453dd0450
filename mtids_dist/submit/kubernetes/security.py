"""What the restricted Pod Security level asks of every pod and container, and a root file system that nobody writes to."""

from __future__ import annotations

from kubernetes.client import V1Capabilities, V1PodSecurityContext, V1SeccompProfile, V1SecurityContext

from mtids_dist.submit.kubernetes.config import Identity


def pod_security(identity: Identity) -> V1PodSecurityContext:
    """Nobody is root; files on volumes belong to the group."""
    return V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=identity.user,
        run_as_group=identity.group,
        fs_group=identity.group,
        fs_group_change_policy="OnRootMismatch",
        seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
    )


def container_security() -> V1SecurityContext:
    """No capabilities, no way to more rights, a read-only root."""
    return V1SecurityContext(
        allow_privilege_escalation=False,
        capabilities=V1Capabilities(drop=["ALL"]),
        read_only_root_filesystem=True,
        run_as_non_root=True,
        seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
    )
