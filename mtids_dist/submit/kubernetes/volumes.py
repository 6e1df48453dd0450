"""What pods mount: the storage, the inputs read-only over it, and the few places that may be written on a read-only root."""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes.client import (
    V1ConfigMapVolumeSource,
    V1EmptyDirVolumeSource,
    V1PersistentVolumeClaimVolumeSource,
    V1Volume,
    V1VolumeMount,
)

from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig
from mtids_dist.submit.kubernetes.places import ARCHIVE, STORAGE, STORE, PersistentVolumeClaim
from mtids_dist.submit.kubernetes.quantities import SUFFIXES, amount
from mtids_dist.submit.kubernetes.work import RUN_FILE, Work

SHARED_MEMORY_SHARE = 0.4
"""Of a pod's memory. Ray's object store takes 30 %, NCCL some more."""
SESSION = "/tmp/ray"  # noqa: S108  (a mount of the pod's own)
"""Where Ray keeps its session."""
TMP = "/tmp"  # noqa: S108


@dataclass(frozen=True)
class Mounted:
    """A volume, and where a container sees it."""

    volume: V1Volume
    mount: V1VolumeMount


def data_volumes(config: ManifestConfig, work: Work) -> list[Mounted]:
    """Storage, archive and store. What the verb only reads is mounted read-only, also where it lies on the storage.

    On a cluster that stays, other verbs will write other stores.
    """
    mounted, stays = [_storage(config)], config.kind is Kind.CLUSTER
    if (work.reads_archive or stays) and config.archive is not None:
        mounted.append(_claim("archive", ARCHIVE, config.archive, read_only=True))
    if config.store is not None:
        mounted.append(_store(config.store, read_only=not (work.writes_store or stays)))
    elif work.store is not None and not (work.writes_store or stays):
        # The same path, over the writable mount: nothing else leads to it.
        folder = str(work.store.relative_to(STORAGE))
        volume = mounted[0].volume
        mounted.append(
            Mounted(volume, V1VolumeMount(name=volume.name, mount_path=str(work.store), sub_path=folder, read_only=True))
        )
    return mounted


def scratch_volumes(memory: str) -> list[Mounted]:
    """What a container may write to: /tmp, Ray's session and shared memory."""
    shared_mib = int(float(amount(memory)) * SHARED_MEMORY_SHARE / float(SUFFIXES["Mi"]))
    shared = V1EmptyDirVolumeSource(medium="Memory", size_limit=f"{max(shared_mib, 64)}Mi")
    return [
        _empty("tmp", TMP, V1EmptyDirVolumeSource()),
        _empty("ray-logs", SESSION, V1EmptyDirVolumeSource()),  # the name that the operator shares with its autoscaler
        _empty("shared-mem", "/dev/shm", shared),  # noqa: S108
    ]


def run_volume(name: str) -> Mounted:
    """The resolved run description."""
    volume = V1Volume(name="run", config_map=V1ConfigMapVolumeSource(name=name))
    return Mounted(volume, V1VolumeMount(name="run", mount_path=RUN_FILE.rpartition("/")[0], read_only=True))


def volumes_of(mounted: list[Mounted]) -> list[V1Volume]:
    """Each volume once, in the order in which it is first mounted."""
    return list({m.volume.name: m.volume for m in mounted}.values())


def _storage(config: ManifestConfig) -> Mounted:
    if isinstance(config.storage, PersistentVolumeClaim):
        return _claim("storage", STORAGE, config.storage, read_only=False)
    return _empty("storage", STORAGE, V1EmptyDirVolumeSource())


def _store(claim: PersistentVolumeClaim, *, read_only: bool) -> Mounted:
    """A store that is read shows itself alone; where one is to be written, its folder may not exist yet."""
    if not read_only or claim.folder is None:
        return _claim("store", STORE, PersistentVolumeClaim(claim.claim), read_only=read_only)
    return _claim("store", f"{STORE}/{claim.folder}", claim, read_only=read_only)


def _claim(name: str, path: str, claim: PersistentVolumeClaim, *, read_only: bool) -> Mounted:
    source = V1PersistentVolumeClaimVolumeSource(claim_name=claim.claim, read_only=read_only or None)
    mount = V1VolumeMount(name=name, mount_path=path, sub_path=claim.folder, read_only=read_only or None)
    return Mounted(V1Volume(name=name, persistent_volume_claim=source), mount)


def _empty(name: str, path: str, source: V1EmptyDirVolumeSource) -> Mounted:
    return Mounted(V1Volume(name=name, empty_dir=source), V1VolumeMount(name=name, mount_path=path))
