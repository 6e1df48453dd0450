"""A world of one rank in this very process: DeepSpeed asks for a process group wherever it runs."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from mtids_dist.train.place import Place, as_torchrun_does


@contextmanager
def alone(device: torch.device) -> Iterator[None]:
    """Be the only rank of a process group for the length of the block: NCCL on a GPU, else gloo."""
    place = Place(rank=0, world_size=1, address="127.0.0.1", port=0)
    with as_torchrun_does(place), tempfile.TemporaryDirectory(prefix="mtids-check-") as folder:
        # A file, since a port that was free a moment ago may be somebody's by now.
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1
        )
        try:
            yield
        finally:
            dist.destroy_process_group()


@contextmanager
def nothing_printed() -> Iterator[None]:
    """Let nothing out of stdout and stderr for the length of the block, not even what libraries write past Python."""
    streams = (sys.stdout, sys.stderr)
    _flush(streams)
    kept = [os.dup(number) for number in (1, 2)]
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a device, no file
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        _flush(streams)
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


def _flush(streams: tuple[object, ...]) -> None:
    for stream in streams:
        stream.flush()  # type: ignore[attr-defined]
