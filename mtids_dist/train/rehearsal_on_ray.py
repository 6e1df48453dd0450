"""The rehearsal of a run where its workers would be: as a task on the connected Ray, with one worker's resources."""

from __future__ import annotations

from math import ceil
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from mtids_dist.errors import MTIDSError, WorkFailedError
from mtids_dist.train.checks import check_gpus
from mtids_dist.train.job import TrainJob
from mtids_dist.train.memory import CropShape
from mtids_dist.train.rehearsal import Rehearsal, rehearse
from mtids_dist.train.trainer import resources_of

ANSWER_S = 600.0
"""A cluster may have to start a node first, and a node that has run nothing yet a process."""


def rehearse_on_ray(job: TrainJob, *, crop_shape: CropShape) -> Rehearsal:
    """Rehearse on a node of the connected Ray that has room for a worker of the job.

    :param crop_shape: of random crops (z, y, x), where the job has no store.
    :raises InputError: as `check_gpus` and `rehearse`.
    :raises WorkFailedError: no node has had room for a worker, or the worker was lost.
    """
    scale = job.train.scale
    check_gpus(scale, ray.cluster_resources().get("GPU", 0))
    resources = resources_of(scale)
    task = ray.remote(rehearse).options(
        num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_retries=0, name=f"check of {scale.workers} worker(s)"
    )
    return _answer(task.remote(job, crop_shape=crop_shape, workers_here=ceil(scale.workers / _nodes())), resources)


def _nodes() -> int:
    """Nodes that can hold workers."""
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()) or 1


def _answer(asked: Any, resources: dict[str, float]) -> Rehearsal:
    try:
        found: Rehearsal = ray.get(asked, timeout=ANSWER_S)
    except GetTimeoutError:
        ray.cancel(asked, force=True)
        wanted = ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
        raise WorkFailedError(f"in {ANSWER_S:.0f} s no node has had room for a worker ({wanted}) that answers") from None
    except RayTaskError as error:
        if isinstance(error.cause, MTIDSError):
            raise error.cause from None
        raise WorkFailedError(f"the check failed on its worker: {_last_line(error)}") from error
    except RayError as error:
        raise WorkFailedError(f"the worker of the check was lost: {_last_line(error)}") from error
    return found


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
