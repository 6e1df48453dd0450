"""Hosts: processes that stay up from the first generation to the last, so that a generation starts in a fraction of a second.

A generation is a Train run of some seconds to minutes. With a worker group of its own it would spend most of 20 s on new
processes that import torch and DeepSpeed; a host has them, and builds only the engine anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from joblib import cpu_count
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import PlacementGroup

from mtids_dist.tune.assignment import Assignment

if TYPE_CHECKING:
    from pathlib import Path

    from mtids_dist.train import TrainJob
    from mtids_dist.tune.config import SearchConfig
    from mtids_dist.tune.generation import Beginning

RESTART_POLL_S = 0.1


@dataclass(frozen=True)
class Prepared:
    """What the ranks of a group train: made by rank 0, read by hosts only."""

    assignment: Assignment
    beginning: Beginning
    shards: tuple[Any, ...]
    address: str
    port: int
    began_s: float


class Host:
    """An actor with the resources of one rank."""

    def __init__(self, job: TrainJob, search: SearchConfig, home: Path, threads: int) -> None:
        from mtids_dist.train import import_all

        self._job, self._search, self._home = job, search, home
        self._threads = min(threads, int(cpu_count()))  # of this machine, not the driver's
        import_all()

    def process_id(self) -> int:
        """Says which process this is, once it is up."""
        return os.getpid()

    def prepare(self, assignment: Assignment, world_size: int) -> Prepared:
        """Lays out the generation's folder, the state to begin with, and each rank's part of the data."""
        from mtids_dist.train import dataset_of, order_seed
        from mtids_dist.tune.generation import begin

        began_s = time.time()
        beginning = begin(self._job, self._search, self._home, assignment)
        epochs = self._job.train.epochs // self._search.generations
        seed = order_seed(beginning.job, first_epoch=beginning.leg.until - epochs)
        name = f"{self._home.name}-generation-{assignment.generation}-member-{assignment.member}"
        dataset = dataset_of(beginning.job, seed=seed, name=name)
        shards = [dataset.iterator()] if world_size == 1 else dataset.streaming_split(world_size, equal=True)
        address = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind((address, 0))
            port = free.getsockname()[1]
        return Prepared(assignment, beginning, tuple(shards), address, port, began_s)

    def train(self, prepared: Prepared, rank: int) -> dict[str, Any] | None:
        """Trains the generation as one of its ranks; rank 0 returns the history's line."""
        from mtids_dist.train import Place, RunFolder, train_leg
        from mtids_dist.tune.generation import result_of

        beginning, assignment = prepared.beginning, prepared.assignment
        folder = RunFolder(self._home / assignment.name)
        place = Place(rank=rank, world_size=len(prepared.shards), address=prepared.address, port=prepared.port)
        train_leg(beginning.job, folder, beginning.leg, place, prepared.shards[rank], threads=self._threads)
        return result_of(assignment, beginning, self._home, began_s=prepared.began_s) if rank == 0 else None


@dataclass
class HostGroup:
    """The hosts that train one member together, one a rank, and the processes that they are now."""

    ranks: tuple[ActorHandle, ...]
    placement: PlacementGroup
    process_ids: tuple[int, ...] = ()

    async def train(self, assignment: Assignment) -> dict[str, Any]:
        """The history's line of the generation.

        :raises RayError: a process was lost, or training failed.
        """
        prepared = self.ranks[0].prepare.remote(assignment, len(self.ranks))
        lines = await asyncio.gather(*(host.train.remote(prepared, rank) for rank, host in enumerate(self.ranks)))
        return dict(lines[0])

    async def restart(self) -> None:
        """New processes in the same places: after a failure nothing is known about the old ones."""
        for host in self.ranks:
            ray.kill(host, no_restart=False)
        new = [_another_process(host, old) for host, old in zip(self.ranks, self.process_ids, strict=True)]
        self.process_ids = tuple(await asyncio.gather(*new))


async def _another_process(host: ActorHandle, old: int) -> int:
    """Waits until the host is another process than `old`: Ray kills it some time after it is asked to."""
    while True:
        with suppress(RayActorError):
            if (found := await host.process_id.remote()) != old:
                return int(found)
        await asyncio.sleep(RESTART_POLL_S)


class HostPool:
    """An actor that hands assignments to the next free group, and has them back whatever becomes of who asked."""

    def __init__(self, groups: list[HostGroup], tries: int) -> None:
        self._free: asyncio.Queue[HostGroup] = asyncio.Queue()
        for group in groups:
            self._free.put_nowait(group)
        self._tries = tries
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def train(self, assignment: Assignment) -> dict[str, Any]:
        """The history's line of the generation; if training failed, one that says why.

        A member whose process is lost asks again for what is still being trained for it.
        """
        if assignment.name not in self._running:
            self._running[assignment.name] = asyncio.ensure_future(self._train(assignment))
        try:
            return await asyncio.shield(self._running[assignment.name])
        finally:
            self._running.pop(assignment.name, None)

    async def _train(self, assignment: Assignment) -> dict[str, Any]:
        group = await self._free.get()
        try:
            line, lost = await self._try(group, assignment)
            for _ in range(self._tries - 1):
                if lost:
                    line, lost = await self._try(group, assignment)
        finally:
            self._free.put_nowait(group)
        return line

    async def _try(self, group: HostGroup, assignment: Assignment) -> tuple[dict[str, Any], bool]:
        """The line, and whether it failed because a process was lost."""
        try:
            return await group.train(assignment), False
        except RayError as error:
            logging.getLogger(__name__).warning("%s: %s", assignment.name, error)
            await group.restart()
            return assignment.failure(_told(error)), isinstance(error, RayActorError)


def make_hosts(
    groups: int, resources: Mapping[str, float], *, world_size: int, job: TrainJob, search: SearchConfig, home: Path, threads: int
) -> list[HostGroup]:
    """Starts hosts in places of their own; returns when all of them are up."""
    placements = [ray.util.placement_group([dict(resources)] * world_size) for _ in range(groups)]
    made = [
        HostGroup(
            tuple(
                ray.remote(Host)
                .options(
                    num_cpus=resources["CPU"],
                    num_gpus=resources.get("GPU", 0),
                    max_restarts=-1,
                    scheduling_strategy=ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(placement, rank),
                )
                .remote(job, search, home, threads)
                for rank in range(world_size)
            ),
            placement,
        )
        for placement in placements
    ]
    for group in made:
        group.process_ids = tuple(ray.get([host.process_id.remote() for host in group.ranks]))
    return made


def remove_hosts(groups: list[HostGroup]) -> None:
    """Ends the hosts and gives their resources back."""
    for group in groups:
        for host in group.ranks:
            ray.kill(host)
        ray.util.remove_placement_group(group.placement)


def _told(error: RayError) -> str:
    """The error's own line, without Ray's traceback around it."""
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    return (lines[-1] if cause is error else lines[0]) if lines else type(cause).__name__
