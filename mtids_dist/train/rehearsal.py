"""A rehearsal of a run: everything is built, one step is taken on one batch, and what was found is told. Nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from joblib import cpu_count

from mtids_dist.data import Batch, Split, label_counts, open_store, random_batch, sample_batch, steps_per_epoch
from mtids_dist.errors import InputError, MTIDSError
from mtids_dist.model import MTIDS, ParamCount, load_trunk
from mtids_dist.train.alone import alone, nothing_printed
from mtids_dist.train.capacity import worker_memory
from mtids_dist.train.checks import check_gpus
from mtids_dist.train.config import ScaleConfig
from mtids_dist.train.engine import close_engine
from mtids_dist.train.job import TrainJob
from mtids_dist.train.learner import Learner
from mtids_dist.train.losses import Counts
from mtids_dist.train.memory import MIB, CropShape, MemoryEstimate
from mtids_dist.train.network import build_network
from mtids_dist.train.packages import imported_from

PACKAGES = ("mtids_dist", "torch", "deepspeed", "ray", "monai", "torchjd", "numpy", "pyarrow")
ROWS_ON_CPU = 2
"""Of a micro-batch: enough for every operator to be asked, and soon done."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What one step of a run has shown.

    :param parameters: of the network, by part.
    :param device: that the step was taken on, by torch's name and by its maker's.
    :param stage_note: why another ZeRO stage runs than was asked for; empty where it does not.
    :param batch_size: crops in a worker's batch as described; `rows` is how many the step had.
    :param source: where the batch came from.
    :param steps_per_epoch: None where there is no store yet.
    :param memory: the estimate for the run's own batch and number of workers.
    :param available: bytes that a worker can have here.
    :param step_s: seconds of the step, the first in its process: later ones are faster.
    :param loss: of each task; None for one without a label in the batch.
    :param packages: module -> version and folder that it would be imported from.
    :param notes: what else a reader should know.
    """

    parameters: ParamCount
    device: str
    device_name: str
    precision: str
    zero_stage: int
    running_stage: int
    stage_note: str
    workers: int
    batch_size: int
    micro_batches: int
    steps_per_epoch: int | None
    rows: int
    source: str
    memory: MemoryEstimate
    available: int
    step_s: float
    loss: Mapping[str, float | None]
    packages: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data, memory in MiB."""
        memory = {**self.memory.parts, "total": self.memory.total, "available": self.available}
        plain = {name: value for name, value in asdict(self).items() if name not in ("memory", "available")}
        return plain | {
            "parameters": {**asdict(self.parameters), "total": self.parameters.total},
            "global_batch": self.workers * self.batch_size,
            "memory_mib": {part: round(size / MIB, 1) for part, size in memory.items()},
        }


def rehearse_here(job: TrainJob, *, crop_shape: CropShape) -> Rehearsal:
    """Rehearse in this process, as if this machine were the cluster.

    :param crop_shape: of random crops (z, y, x), where the job has no store.
    :raises InputError: as `check_gpus` and `rehearse`, or a GPU is asked for and there is none.
    """
    scale = job.train.scale
    if scale.gpus_per_worker == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as Ray does for a worker that has none
    gpus = torch.cuda.device_count()
    check_gpus(scale, gpus)
    if scale.gpus_per_worker and not gpus:
        raise InputError(
            "this machine has no GPU",
            where="train.scale.gpus_per_worker",
            found=f"{scale.gpus_per_worker:g}",
            allowed="0, or --address of a cluster that has GPUs",
        )
    return rehearse(job, crop_shape=crop_shape, workers_here=scale.workers)


def rehearse(job: TrainJob, *, crop_shape: CropShape, workers_here: int) -> Rehearsal:
    """Build everything that a worker of the job has, on this process's own device, and take one step.

    On a CPU the batch has as many rows as make every micro-batch hold two.

    :param crop_shape: of random crops (z, y, x), where the job has no store.
    :param workers_here: workers that share this machine's memory, where they have no GPU.
    :raises InputError: the job needs more memory than there is, or can't be built or stepped here.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = worker_memory(device, workers_here=workers_here)
    torch.set_num_threads(max(1, int(cpu_count()) // workers_here))  # as a worker does
    with nothing_printed(), _refusals(job, device):
        material = _Material.of(job, crop_shape, rows=_rows(job, device))
        memory = MemoryEstimate.of(job, material.crop_shape, device)
        memory.check(job, available)
        with alone(device):
            step = _take_step(job, material)
    scale = job.train.scale
    return Rehearsal(
        parameters=job.model.num_params(job.num_classes),
        device=device.type,
        device_name=torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} thread(s)",
        precision=scale.precision.value,
        zero_stage=scale.zero_stage,
        running_stage=scale.running_stage,
        stage_note=_stage_note(scale),
        workers=scale.workers,
        batch_size=job.data.batch_size,
        micro_batches=scale.micro_batches,
        steps_per_epoch=material.steps,
        rows=len(material.batch),
        source=material.source,
        memory=memory,
        available=available,
        step_s=step.seconds,
        loss=step.loss,
        packages=imported_from(PACKAGES),
        notes=step.notes,
    )


@dataclass(frozen=True)
class _Material:
    """What a step is taken on, and what is known of the data that it comes from."""

    batch: Batch
    counts: Counts
    crop_shape: CropShape
    steps: int | None
    source: str

    @classmethod
    def of(cls, job: TrainJob, crop_shape: CropShape, *, rows: int) -> _Material:
        return cls._random(job, crop_shape, rows) if job.data.store is None else cls._real(job, rows)

    @classmethod
    def _real(cls, job: TrainJob, rows: int) -> _Material:
        store = open_store(job.data.store or "")
        folds = store.folds_of(Split.TRAIN, job.data.fold)
        return cls(
            batch=sample_batch(store, job.data, job.tasks, rows=rows, seed=job.seed),
            counts=label_counts(store, folds, job.tasks),
            crop_shape=store.crop_shape,
            steps=steps_per_epoch(store.count(folds), job.train.scale.workers, job.data.batch_size),
            source=f"training rows of {store.path}",
        )

    @classmethod
    def _random(cls, job: TrainJob, crop_shape: CropShape, rows: int) -> _Material:
        return cls(
            batch=random_batch(crop_shape, job.data, job.tasks, rows=rows, seed=job.seed),
            counts={name: np.ones(task.num_classes, dtype=np.int64) for name, task in job.tasks.items()},
            crop_shape=crop_shape,
            steps=None,
            source="random crops: without data.store, `train` makes the phantom cohort first",
        )


@dataclass(frozen=True)
class _Step:
    seconds: float
    loss: Mapping[str, float | None]
    notes: tuple[str, ...]


def _take_step(job: TrainJob, material: _Material) -> _Step:
    torch.manual_seed(job.seed)
    network = build_network(job)
    notes = _started_from(job, network)
    total_steps = max((material.steps or 1) * job.train.epochs, 1)
    learner = Learner(job, material.counts, network, batch_size=len(material.batch), total_steps=total_steps)
    try:
        began = time.perf_counter()
        loss = learner.step(material.batch).loss  # reading it waits for the device
        return _Step(time.perf_counter() - began, loss, notes)
    finally:
        close_engine(learner.engine)


def _started_from(job: TrainJob, network: MTIDS) -> tuple[str, ...]:
    return () if job.train.init_from is None else (str(load_trunk(network, job.train.init_from)),)


def _rows(job: TrainJob, device: torch.device) -> int:
    whole = job.data.batch_size
    return whole if device.type == "cuda" else min(whole, ROWS_ON_CPU * job.train.scale.micro_batches)


def _stage_note(scale: ScaleConfig) -> str:
    return "" if scale.running_stage == scale.zero_stage else "bf16 has fp32 master weights only from stage 1 on"


@contextmanager
def _refusals(job: TrainJob, device: torch.device) -> Iterator[None]:
    """Tells whatever goes wrong in building or stepping as one line that names a setting."""
    precision = job.train.scale.precision.value
    try:
        yield
    except InputError:
        raise
    except MTIDSError as error:
        raise InputError(f"the first step failed: {error}", where="train") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_much(job, error) from error
    except RuntimeError as error:  # NotImplementedError, too: an operator that the device lacks
        if "memory" in _first_line(error):
            raise _too_much(job, error) from error
        what = f"a step can't be taken in {precision} on this {device.type} device"
        raise InputError(what, where="train.scale.precision", found=_first_line(error)) from error
    except ValueError as error:  # of `check_engine`
        raise InputError("this can't be trained", where="train.scale.deepspeed", found=_first_line(error)) from error
    except Exception as error:  # of a library, whose settings the run description hands on
        where = "train.scale.deepspeed" if job.train.scale.deepspeed else "train"
        raise InputError("this can't be trained", where=where, found=f"{type(error).__name__}: {_first_line(error)}") from error


def _too_much(job: TrainJob, error: BaseException) -> InputError:
    what = f"a step of {job.data.batch_size} crops does not fit into memory here"
    return InputError(what, where="data.batch_size", found=_first_line(error), allowed="fewer, or more train.scale.micro_batches")


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
