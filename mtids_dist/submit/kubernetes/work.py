"""What a verb does inside the cluster: its command line, with the run's paths as the pods see them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from mtids_dist.config import RunConfig
from mtids_dist.errors import InputError
from mtids_dist.submit.kubernetes.config import Kind, ManifestConfig
from mtids_dist.submit.kubernetes.names import is_plain_path
from mtids_dist.submit.kubernetes.places import ARCHIVE, STORAGE, STORE, Bucket

RUN_FILE = "/etc/mtids-dist/run.yaml"
"""The resolved run description, from the ConfigMap."""

FOLDER_VERBS = ("prepare", "evaluate")
"""Verbs whose arguments are folders, which the run description names; they compute on CPUs alone."""


@dataclass(frozen=True)
class Work:
    """One verb on one run, inside the cluster."""

    verb: str
    command: tuple[str, ...]
    run: RunConfig
    """with paths as the pods see them"""
    store: PurePosixPath | None
    """None: the phantom cohort, made beside the run folder"""
    writes_store: bool
    reads_archive: bool
    ranks: int
    """processes that train together; 0: the verb has none"""
    on_worker: bool
    """whether the work is done where the command runs, so that it belongs on a worker"""

    @property
    def description(self) -> str:
        """The resolved run description, as the pods read it."""
        return yaml.safe_dump(self.run.resolved(), sort_keys=False)

    @property
    def folder(self) -> PurePosixPath:
        """What it leaves behind: a run folder, or the store."""
        return PurePosixPath(self.store if self.writes_store and self.store else self.run.run)


def work_of(verb: str, run: RunConfig, config: ManifestConfig, *, run_verbs: Collection[str]) -> Work:
    """What `verb` does with `run` inside the cluster.

    :param run_verbs: the verbs whose argument is a run description.
    :raises InputError: an unknown verb, a path that no mount holds, nothing to read or nowhere to write.
    """
    if verb not in run_verbs and verb not in FOLDER_VERBS:
        known = ", ".join(sorted({*run_verbs, *FOLDER_VERBS}))
        raise InputError("this verb has no run description to work on", where="manifest VERB", found=verb, allowed=known)
    run = _placed(run, config)
    store = None if run.data.store is None else PurePosixPath(run.data.store)
    if verb == "prepare":
        return _prepare(run, store, config)
    if verb == "evaluate":
        return _evaluate(run, store)
    if config.kind is not Kind.JOB:
        run = _pinned(verb, run, config)
    ranks = run.train.scale.workers
    return Work(verb, (verb, RUN_FILE), run, store, writes_store=False, reads_archive=False, ranks=ranks, on_worker=False)


def _prepare(run: RunConfig, store: PurePosixPath | None, config: ManifestConfig) -> Work:
    if config.archive is None:
        raise InputError("prepare reads an archive", where="--archive", allowed="pvc:NAME[/SUBPATH]")
    if store is None:
        raise InputError("prepare needs a place for the store", where="data.store", allowed="a path, or --store pvc:NAME/SUBPATH")
    nodes = str(PurePosixPath(ARCHIVE, config.nodes))
    if not PurePosixPath(nodes).is_relative_to(ARCHIVE):
        allowed = f"a path in the archive, or below {ARCHIVE}"
        raise InputError("no pod mounts this node table", where="--nodes", found=config.nodes, allowed=allowed)
    command: tuple[str, ...] = ("prepare", ARCHIVE, nodes, str(store), "--config", RUN_FILE)
    if run.prepare.key_file is not None:  # a run description never carries it
        command += ("--set", f"prepare.key_file={run.prepare.key_file}")
    return Work("prepare", command, run, store, writes_store=True, reads_archive=True, ranks=0, on_worker=False)


def _evaluate(run: RunConfig, store: PurePosixPath | None) -> Work:
    if store is None:
        raise InputError("evaluate reads a store", where="data.store", allowed="a path, or --store pvc:NAME/SUBPATH")
    command = ("evaluate", str(PurePosixPath(run.run)), str(store))
    return Work("evaluate", command, run, store, writes_store=False, reads_archive=False, ranks=0, on_worker=True)


def _placed(run: RunConfig, config: ManifestConfig) -> RunConfig:
    """`run` with its paths as the pods see them."""
    data, train, prepare = run.data, run.train, run.prepare
    if isinstance(config.storage, Bucket):
        _check_only_the_run_is_there(run, config.storage)
    return run.model_copy(
        update={
            "run": _path("run", run.run),
            "data": data.model_copy(update={"store": _store(data.store, config)}),
            "train": train.model_copy(update={"init_from": train.init_from and _path("train.init_from", train.init_from)}),
            "prepare": prepare.model_copy(update={"key_file": prepare.key_file and _path("prepare.key_file", prepare.key_file)}),
        }
    )


def _check_only_the_run_is_there(run: RunConfig, bucket: Bucket) -> None:
    """A bucket's run folder alone is brought to the pod's disk and taken back."""
    for key, path in (("train.init_from", run.train.init_from), ("prepare.key_file", run.prepare.key_file)):
        if path is not None:
            raise InputError(
                f"{key} is not read from a bucket", where=f"--storage {bucket}", found=path, allowed="--storage pvc:NAME"
            )


def _store(path: Path | None, config: ManifestConfig) -> Path | None:
    if config.store is not None:
        return Path(STORE, config.store.folder or "")
    if path is not None and isinstance(config.storage, Bucket):
        raise InputError(
            "a store is not read from a bucket", where=f"--storage {config.storage}", allowed="--store pvc:NAME[/SUBPATH]"
        )
    return path and _path("data.store", path)


def _path(key: str, path: Path) -> Path:
    """A relative path lies below the storage."""
    placed = Path(STORAGE) / path
    if not is_plain_path(str(placed)) or not PurePosixPath(placed).is_relative_to(STORAGE) or str(placed) == STORAGE:
        raise InputError(
            f"{key} is not on the storage that the pods mount",
            where="manifest",
            found=path,
            allowed=f"a path relative to the storage, or below {STORAGE}; letters, digits and ._/=+-",
        )
    return placed


def _pinned(verb: str, run: RunConfig, config: ManifestConfig) -> RunConfig:
    """`run` with what each rank gets written down: of a cluster that is still growing it would ask too little, and ranks that
    ask for little are packed on one pod."""
    scale, workers = run.train.scale, config.workers
    of_rank: dict[str, float] = {}
    if scale.gpus_per_worker is None:
        of_rank["gpus_per_worker"] = float(workers.gpus > 0)
    if verb == "train" and scale.cpus_per_worker is None:
        ranks_a_pod = -(-scale.workers // max(1, pods(config, scale.workers)))
        of_rank["cpus_per_worker"] = math.floor(max(workers.cpus - 1, 0.5) / ranks_a_pod * 100) / 100
    pinned = scale.model_copy(update=of_rank)
    return run.model_copy(update={"train": run.train.model_copy(update={"scale": pinned})})


def copies_to_bucket(config: ManifestConfig, work: Work) -> bool:
    """Whether what the verb leaves behind has to be taken to a bucket: a store on a claim of its own has not."""
    return isinstance(config.storage, Bucket) and work.folder.is_relative_to(STORAGE)


def pods(config: ManifestConfig, ranks: int) -> int:
    """Worker pods at most: as described, or as many as there are ranks."""
    if config.workers.autoscale is not None:
        return config.workers.autoscale[1]
    return max(1, ranks) if config.workers.count is None else config.workers.count
