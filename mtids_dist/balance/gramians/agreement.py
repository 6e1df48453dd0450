"""How the ranks agree on the Gramian of the task gradients: what each way differentiates, sends and keeps.

Legend: K tasks, N shared parameters, R ranks, B numbers in the border tensors of a rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

CHUNK = 1 << 16
"""Columns that are taken to float64 at a time: few enough for a cache."""


class Agreement(Protocol):
    """The Gramian of one step, from this rank's rows, one task after the other; every rank adds the same tasks in turn."""

    def add(self, row: Tensor) -> None:
        """Takes the next task's row of this rank, which must stay as it is until `gramian`; may begin to send it."""
        ...

    def gramian(self) -> Tensor:
        """[K, K] float64 on the CPU, the same on every rank; a collective."""
        ...


class Gramian(Protocol):
    """A way to agree on the Gramian of the mean gradients."""

    at_border: bool
    """Whether rows are gradients at the border tensors between shared and private parts, instead of at the shared parameters."""

    def agree(self) -> Agreement:
        """Begins a step."""
        ...

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:
        """Bytes that a rank sends in a step, besides the data-parallel reduction itself."""
        ...

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """Bytes of gradients that a rank keeps in a step at most, besides those of a plain step."""
        ...


def inner_products(rows: Sequence[Tensor]) -> Tensor:
    """J J^T [K, K] in float64 on the CPU, of rows [N] in any precision."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for J in _chunks(rows):
        total += J @ J.T
    return total.cpu()


def _chunks(rows: Sequence[Tensor]) -> Iterator[Tensor]:
    for start in range(0, len(rows[0]), CHUNK):
        yield torch.stack([row[start : start + CHUNK] for row in rows]).double()
