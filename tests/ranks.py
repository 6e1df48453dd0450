"""Real processes with a process group between them: compute on one rank, run on N, compare."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Where torch and DeepSpeed see only the CPU: several ranks of a test would else meet on a machine's one GPU."""


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any, device: str = "cpu") -> list[Any]:
    """What `function(*args)` returns on each of `world_size` new processes, by rank. It must be importable.

    :param device: cpu, or cuda, where a single rank takes the first GPU.
    """
    hidden = NO_GPU if device == "cpu" else {}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, hidden):
        arguments = (world_size, folder, device, function, args)
        mp.start_processes(_on_rank, arguments, nprocs=world_size, start_method="spawn")
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(world_size)]


def _on_rank(rank: int, world_size: int, folder: str, device: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    # A file, since a port that was free a moment ago may be somebody's by now.
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group(BACKENDS[device], init_method=meeting, rank=rank, world_size=world_size)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(function(*args)))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python's way out ends threads that wait for its lock, and one of gloo's that still has a tensor to drop aborts at that.
    os._exit(0)
