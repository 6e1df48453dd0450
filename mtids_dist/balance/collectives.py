"""Collectives that also work without a process group, where the world has one rank."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """How many ranks share the gradients; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def start_sum(tensor: Tensor) -> dist.Work | None:
    """Begins to sum `tensor` over the ranks in place; wait on what comes back. None when there is nothing to wait for."""
    return dist.all_reduce(tensor, async_op=True) if world_size() > 1 else None


def rank_sum(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum of a small `tensor` over the ranks; it travels on `device`, the one that the backend can reach."""
    if world_size() == 1:
        return tensor
    on_device = tensor.to(device, copy=True).contiguous()
    dist.all_reduce(on_device)
    return on_device.to(tensor.device)


def from_each_rank(tensor: Tensor, device: torch.device) -> Tensor:
    """Every rank's small `tensor`, stacked [R, ...]."""
    if world_size() == 1:
        return tensor[None]
    mine = tensor.to(device).contiguous()
    found = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(found, mine)
    return torch.stack(found).to(tensor.device)


def from_rank_zero(tensor: Tensor, device: torch.device) -> Tensor:
    """Rank 0's `tensor` on every rank; it travels on `device`, the one that the backend can reach."""
    if world_size() == 1:
        return tensor
    on_device = tensor.to(device).contiguous()
    dist.broadcast(on_device, src=0)
    return on_device.to(tensor.device)
