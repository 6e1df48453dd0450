"""One leg of a run on ranks that are there already, and outlive it: what makes short legs cheap."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray.data
import torch.distributed as dist
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from mtids_dist.data import Split, open_store, train_dataset
from mtids_dist.train.engine import use_no_compiled_ops
from mtids_dist.train.failures import told
from mtids_dist.train.job import Leg, RunFolder, TrainJob
from mtids_dist.train.place import Place, as_torchrun_does
from mtids_dist.train.worker import train_on_rank


def import_all() -> None:
    """Imports what training imports when it is needed, so that a process that waits for its first leg has it."""
    use_no_compiled_ops()


def train_leg(job: TrainJob, folder: RunFolder, leg: Leg, place: Place, shard: ray.data.DataIterator, *, threads: int) -> None:
    """Trains one leg in this very process, as one rank of a world: every process of it calls this.

    Ray Train's local mode runs the loop where it is called; a group of such processes is what torchrun would make.

    :param shard: this rank's part of `dataset_of(job)`.
    :raises MTIDSError: a rank was lost, or training itself failed.
    """
    with as_torchrun_does(place):
        try:
            TorchTrainer(
                train_on_rank,
                train_loop_config=rank_settings(job, folder, leg, threads=threads) | {"shard": shard},
                scaling_config=ScalingConfig(num_workers=0),
            ).fit()
        except Exception as error:
            raise told(error, folder.logs) from error
        finally:
            if dist.is_initialized():  # after a failure: the other ranks must not wait for this one
                dist.destroy_process_group()


def rank_settings(job: TrainJob, folder: RunFolder, leg: Leg, *, threads: int | None = None) -> dict[str, Any]:
    """What `train_on_rank` is given, as data that any process can read."""
    return {
        "job": job.model_dump(mode="json"),
        "folder": str(folder.path.absolute()),
        "leg": leg.model_dump(mode="json"),
        "threads": threads,
    }


def dataset_of(job: TrainJob, *, seed: int, name: str) -> ray.data.Dataset:
    """The crops that the job trains on, part files in the order that `seed` gives.

    :param name: what Ray's dashboard calls them; Ray makes a file of that name, so no slash in it.
    """
    assert job.data.store is not None
    store = open_store(job.data.store)
    dataset = train_dataset(store, store.folds_of(Split.TRAIN, job.data.fold), job.tasks, seed=seed)
    dataset.set_name(name)
    return dataset


def order_seed(job: TrainJob, *, first_epoch: int) -> int:
    """Ray Data counts a dataset's epochs from 0 again when a run resumes: the seed moves on with the first of them."""
    return int(np.random.SeedSequence((job.seed, first_epoch)).generate_state(1)[0])
