"""Real processes with gloo between them: compute on one rank, run on N, compare."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """What `function(*args)` returns on each of `world_size` new processes, by rank. It must be importable."""
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_on_rank, (world_size, folder, function, args), nprocs=world_size, start_method="spawn")
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(world_size)]


def _on_rank(rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    # A file, since a port that was free a moment ago may be somebody's by now.
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(function(*args)))
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python's way out ends threads that wait for its lock, and one of gloo's that still has a tensor to drop aborts at that.
    os._exit(0)
