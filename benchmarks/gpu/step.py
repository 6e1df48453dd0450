"""A training step of configs/mtids.yaml through the product's own `Learner`, on random crops that lie on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from device import Device
from modes import MODES, job_of
from profiled import kernels_and_busy

from mtids_dist.data import Batch
from mtids_dist.train import TrainJob, build_network
from mtids_dist.train.alone import alone

Line = dict[str, Any]

BATCHES = (16, 64)
WARM_UP, TOTAL = 4, 1000
"""Steps before those that are timed, and those that the learning rate's schedule is told of."""


def table(
    device: Device, rounds: int, seed: int, told: Callable[[Line], None], *, rows: int | None = None, side: int | None = None
) -> list[Line]:
    """Return a line for every batch size and mode.

    :param rows: crops in a batch, instead of `BATCHES`.
    :param side: voxels along a crop's edge, instead of the file's.
    """
    lines = []
    with alone(torch.device(device.name)):
        for batch_size in (rows,) if rows else BATCHES:
            for mode in MODES:
                lines.append(attempted(mode, batch_size, side, rounds, seed, device))
                told(lines[-1])
    return lines


def attempted(mode: str, batch_size: int, side: int | None, rounds: int, seed: int, device: Device) -> Line:
    """Return a line of the table, or why there are no figures in it: one mode's failure is not the others'."""
    try:
        job = job_of(mode, batch_size)
        scale = job.train.scale
        head = {"mode": mode, "precision": scale.precision.value, "zero_stage": scale.running_stage, "batch": batch_size}
        return head | measure(job, side or edge_of(job), rounds, seed, device)
    except Exception as error:
        return {"mode": mode, "batch": batch_size, "refused": reason(error)}


def measure(job: TrainJob, side: int, rounds: int, seed: int, device: Device) -> Line:
    """Return seconds, crops, memory, kernels and busy share of one mode's step."""
    from mtids_dist.train.engine import close_engine
    from mtids_dist.train.learner import Learner

    before_gib = device.held_gib()
    torch.manual_seed(seed)
    counts = {task: np.full(settings.num_classes, 5) for task, settings in job.tasks.items()}
    learner = Learner(job, counts, build_network(job), batch_size=job.data.batch_size, total_steps=TOTAL)
    try:
        batch = random_batch(job, side, device)
        seconds = seconds_of(lambda: learner.step(batch), rounds, device)
        peak_gib = device.peak_gib() - before_gib
        kernels, busy = kernels_and_busy(lambda: learner.step(batch), device)
    finally:
        close_engine(learner.engine)
    return {
        "side": side,
        "ms": 1e3 * median(seconds),
        "crops_per_s": job.data.batch_size / median(seconds),
        "peak_gib": peak_gib,
        "kernels": kernels,
        "busy": busy,
    }


def seconds_of(step: Callable[[], object], rounds: int, device: Device) -> Sequence[float]:
    """Return the seconds of each of some steps, every one waited for, after a few that warm up."""
    seconds = []
    for _ in range(WARM_UP + rounds):
        device.wait()
        began = time.perf_counter()
        step()
        device.wait()
        seconds.append(time.perf_counter() - began)
    return seconds[WARM_UP:]


def random_batch(job: TrainJob, side: int, device: Device) -> Batch:
    """Return noise crops [B, 1, side, side, side] on the device, every label known."""
    rows = job.data.batch_size
    labels = {task: torch.randint(0, settings.num_classes, (rows,)) for task, settings in job.tasks.items()}
    crops = torch.randn(rows, 1, side, side, side)
    return Batch(crops.to(device.name), {task: label.to(device.name) for task, label in labels.items()})


def edge_of(job: TrainJob) -> int:
    """Return the voxels along an edge of the file's crops."""
    crop = job.data.crop
    assert isinstance(crop, int)
    return crop


def reason(error: Exception) -> str:
    """Return the beginning of an error, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
