"""How much memory a worker can have at most."""

from __future__ import annotations

import os
from pathlib import Path

import torch

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container finds its own limit: control groups in version 2, and in version 1."""


def worker_memory(device: torch.device, *, workers_here: int) -> int:
    """Tell the bytes that a worker can have: its GPU's memory, or its part of this machine's.

    :param workers_here: workers that share this machine's memory, where they have no GPU.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine_memory() // workers_here


def machine_memory() -> int:
    """Tell the bytes of this machine's memory, or of the container's part of it, whoever uses them now."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit for path in CGROUP_LIMITS if (limit := _limit(path)) is not None)])


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:  # not this version of control groups
        return None
    return int(text) if text.isdigit() else None  # "max": none
