"""A process group of this process alone, as the engine wants one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from device import Device


@contextmanager
def one_rank(device: Device) -> Iterator[None]:
    """Make this process rank 0 of 1, by NCCL on a GPU as the product does, else by gloo."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    if device.is_gpu:
        torch.cuda.set_device(0)
    with tempfile.TemporaryDirectory() as folder:
        # A file, since a port that was free a moment ago may be somebody's by now.
        meeting = f"file://{folder}/rendezvous"
        dist.init_process_group("nccl" if device.is_gpu else "gloo", init_method=meeting, rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()
