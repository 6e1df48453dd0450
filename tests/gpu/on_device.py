"""A rank of its own process on a GPU, with NCCL as the product has it, or on a CPU with gloo, on the same machine."""

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

NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
"""Where torch and DeepSpeed see only the CPU; both look at it when they are imported."""


def run_on(device: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return what `function(*args)` returns on the only rank of a new process.

    :param device: cuda | cpu.
    :param function: importable; what it returns can be pickled, and is on the CPU.
    """
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {**rank, **(NO_GPU if device == "cpu" else {})}):
        mp.start_processes(_on_rank, (device, folder, function, args), nprocs=1, start_method="spawn")
        return pickle.loads((Path(folder) / "found").read_bytes())


def _on_rank(_: int, device: str, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if device == "cuda":
        torch.cuda.set_device(0)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    (Path(folder) / "found").write_bytes(pickle.dumps(function(*args)))
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # as tests/ranks.py: gloo's threads may not survive Python's way out
