"""What a step needs of a worker's memory, by part, worked out before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mtids_dist.errors import InputError
from mtids_dist.model import MTIDS, nothing_allocated
from mtids_dist.train.config import Optimizer, OptimizerConfig, Precision
from mtids_dist.train.job import TrainJob
from mtids_dist.train.network import build_network

FP32, LABEL = 4, 8
"""Bytes of a number in master weights, moments and a batch's crops, and of a class index."""
BUCKET = 500_000_000
"""DeepSpeed's own size of a bucket."""
MIB, GIB = 1 << 20, 1 << 30

CropShape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of tensors that a worker holds when a step is at its fullest.

    What libraries, the allocator and the temporaries of a single operation take comes on top; what `train.scale.deepspeed` moves
    off the device is counted all the same.

    :param weights: in the run's precision; under ZeRO-3 a step gathers them whole beside the worker's own part.
    :param gradients: those that are handed over, whole in every stage, and the part that ZeRO averages in float32.
    :param optimizer: moments, and ZeRO's float32 master weights; from stage 1 on a worker has its part of them.
    :param buckets: in which ZeRO reduces gradients. DeepSpeed reserves them in full, whatever the network's size, which costs on
        a GPU; a machine's memory is only taken as far as it is written to.
    :param balancer: the tasks' own gradients on what they share.
    :param activations: of one micro-batch, what autograd keeps for the backward.
    :param batch: float32 crops and class indices as they are read, and a micro-batch's crops in another precision.
    :param crop: bytes of `activations` and `batch` that one more crop in `data.batch_size` would add.
    """

    weights: int
    gradients: int
    optimizer: int
    buckets: int
    balancer: int
    activations: int
    batch: int
    crop: int

    @classmethod
    def of(cls, job: TrainJob, crop_shape: CropShape, device: torch.device) -> MemoryEstimate:
        """Estimate a job on crops of so many voxels (z, y, x), on workers with such a device.

        The network is only built and run on torch's meta device, which does as a GPU does: a CPU keeps more in bf16.
        """
        with nothing_allocated():
            network = build_network(job)
            kept = _kept_bytes(job, network, crop_shape)
            balancer = _balancer_bytes(job, network)
        states = _StateBytes(job, sum(parameter.numel() for parameter in network.parameters()))
        per_crop = _crop_bytes(job, crop_shape)
        rows, parts = job.data.batch_size, job.train.scale.micro_batches
        return cls(
            weights=states.weights,
            gradients=states.gradients,
            optimizer=states.optimizer,
            buckets=states.buckets if device.type == "cuda" else min(states.buckets, states.weights),
            balancer=balancer,
            activations=kept.of(ceil(rows / parts)),
            batch=ceil(rows * per_crop),
            crop=ceil(kept.per_row / parts + per_crop),
        )

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """Part -> bytes."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "crop"}

    def check(self, job: TrainJob, available: int) -> None:
        """Refuse a job of this estimate that a worker with so many bytes can't hold.

        :raises InputError: naming how many crops a batch may have, or the network where not even one fits.
        """
        if self.total <= available:
            return
        parts, rows = job.train.scale.micro_batches, job.data.batch_size
        most = (available - self.total + rows * self.crop) // self.crop // parts * parts
        if most < parts:
            raise InputError(
                "the network does not fit into a worker's memory, whatever the batch",
                where="model",
                found=f"about {_gib(self.total)} a worker",
                allowed=f"{_gib(available)} here: a smaller network, or train.scale.zero_stage on more workers",
            )
        raise InputError(
            "a batch does not fit into a worker's memory",
            where="data.batch_size",
            found=f"{rows} crops, about {_gib(self.total)} a worker",
            allowed=f"at most about {most} crops here, in {_gib(available)}",
        )


def saved_bytes(network: nn.Module, crops: Tensor) -> int:
    """Count the bytes that a forward of crops [B, 1, D, H, W] keeps for its backward: each storage once, without the crops and
    the network's own parameters and buffers. On the meta device nothing is computed."""
    known = {_place(tensor) for tensor in (*network.parameters(), *network.buffers(), crops)}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_place(tensor)] = tensor  # held, since a freed storage's place may become another's
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        network(crops)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in known)


def _place(tensor: Tensor) -> int:
    """What tells storages apart; on the meta device every data pointer is 0."""
    place: int = tensor.untyped_storage()._cdata
    return place


@dataclass(frozen=True)
class _Kept:
    """Bytes kept for a backward: a number whatever the batch (weights in another precision), and so many a row."""

    fixed: int
    per_row: int

    def of(self, rows: int) -> int:
        return self.fixed + rows * self.per_row


def _kept_bytes(job: TrainJob, network: nn.Module, crop_shape: CropShape) -> _Kept:
    """Two forwards tell what grows with the batch."""
    dtype = _dtype(job)
    network = network.to(dtype).train()
    one, two = (saved_bytes(network, torch.empty(rows, 1, *crop_shape, dtype=dtype, device="meta")) for rows in (1, 2))
    return _Kept(fixed=2 * one - two, per_row=two - one)


def _balancer_bytes(job: TrainJob, network: MTIDS) -> int:
    if job.balance.weights_losses:
        return 0
    numbers = sum(parameter.numel() for parameter in network.shared_parameters())
    return job.balance.build_gramian().bytes_kept(len(job.tasks), numbers, job.train.scale.workers)


def _crop_bytes(job: TrainJob, crop_shape: CropShape) -> float:
    """Of a crop and its labels in a batch; a micro-batch is what is there twice, where another precision is made of it."""
    depth, height, width = crop_shape
    again = 2 / job.train.scale.micro_batches if job.train.scale.precision is Precision.BF16 else 0
    return depth * height * width * (FP32 + again) + LABEL * len(job.tasks)


class _StateBytes:
    """Weights, gradients and optimizer states of so many parameters, as ZeRO cuts them."""

    def __init__(self, job: TrainJob, parameters: int) -> None:
        scale = job.train.scale
        number, stage = _dtype(job).itemsize, scale.running_stage
        whole, share = parameters, ceil(parameters / scale.workers)
        self.weights = number * (whole + share if stage == 3 else whole)
        self.gradients = number * whole + (FP32 * share if stage else 0)
        moments = _moments(job.train.optimizer)
        self.optimizer = FP32 * share * (moments + 1) if stage else FP32 * whole * moments
        self.buckets = number * _bucket_size(job) if stage else 0


def _moments(optimizer: OptimizerConfig) -> int:
    if optimizer.name is Optimizer.SGD:
        return 1 if optimizer.momentum else 0
    return 2


def _bucket_size(job: TrainJob) -> int:
    """Numbers in a bucket."""
    zero = job.train.scale.deepspeed.get("zero_optimization")
    return int(zero.get("reduce_bucket_size", BUCKET)) if isinstance(zero, Mapping) else BUCKET


def _dtype(job: TrainJob) -> torch.dtype:
    return torch.bfloat16 if job.train.scale.precision is Precision.BF16 else torch.float32


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
