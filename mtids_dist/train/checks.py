"""What is refused before a worker starts. Without Ray, so that a refusal is as quick as it can be."""

from __future__ import annotations

from mtids_dist.data import check_store, open_store
from mtids_dist.errors import InputError
from mtids_dist.train.config import ScaleConfig
from mtids_dist.train.job import TrainJob


def check_job(job: TrainJob) -> None:
    """Everything about data that can be refused before a worker starts.

    :raises InputError: no store, another crop size, a missing column, an empty fold, fewer rows than a global batch.
    """
    if job.data.store is None:
        raise InputError(
            "no store to train on", where="data.store", allowed="a folder that `mtids-dist prepare` or `dataset` wrote"
        )
    check_store(open_store(job.data.store), job.data, job.tasks, world_size=job.train.scale.workers)


def check_gpus(scale: ScaleConfig, gpus: float) -> None:
    """What can't train on a cluster with so many GPUs, said before a worker starts.

    :raises InputError: fewer GPUs than workers, where nothing says that none are wanted; or workers that would share one.
    """
    found = f"{scale.workers} workers, {gpus:g} GPUs"
    if scale.gpus_per_worker is None and 0 < gpus < scale.workers:
        allowed = f"{int(gpus)} workers, or --set train.scale.gpus_per_worker=0 to train on CPUs"
        raise InputError("there is no GPU for each worker", where="train.scale.workers", found=found, allowed=allowed)
    share = scale.gpus_per_worker or 0.0
    if scale.workers > 1 and share % 1:
        raise InputError(
            "workers that share a GPU can't reach each other by NCCL",
            where="train.scale.gpus_per_worker",
            found=f"{scale.workers} workers with {share:g} GPUs each",
            allowed="a whole number of GPUs a worker, or one worker",
        )
