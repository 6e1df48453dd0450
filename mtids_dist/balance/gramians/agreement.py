"""How the ranks agree on the Gramian of the task gradients: what each way differentiates, sends and keeps.

Legend: K tasks, N shared parameters, R ranks, B numbers in the border tensors of a rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import Protocol

import torch
from torch import Tensor

PIECES = 1 << 16, 1 << 22
"""Numbers of a row that are taken to float64 at a time, on a CPU and on an accelerator."""
SMALL = 1 << 13
"""Numbers in a tensor below which it shares a piece with others: most parameters of a network are norms and biases."""


class Agreement(Protocol):
    """The Gramian of one step, from this rank's rows, one task after the other; every rank adds the same tasks in turn."""

    def add(self, row: Sequence[Tensor]) -> None:
        """Takes the next task's row of this rank, a tensor a parameter (or border tensor), which must stay as it is until
        `gramian`; may begin to send it."""
        ...

    def gramian(self) -> Tensor:
        """[K, K] float64 on the CPU, the same on every rank; a collective."""
        ...


class Gramian(Protocol):
    """A way to agree on the Gramian of the mean gradients."""

    at_border: bool
    """Whether rows are gradients at the border tensors between shared and private parts, instead of at the shared parameters."""

    def agree(self, step: int) -> Agreement:
        """Begins a step, the same one on every rank; its number is what random draws depend on."""
        ...

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:
        """Bytes that a rank sends in a step, besides the data-parallel reduction itself."""
        ...

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """Bytes of gradients that a rank keeps in a step at most, besides those of a plain step."""
        ...


def inner_products(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """J J^T [K, K] in float64 on the CPU, of rows that are lists of tensors in any precision."""
    products = []
    length = min(length_on(rows[0][0].device, PIECES), sum(tensor.numel() for tensor in rows[0]))
    room = rows[0][0].new_empty(
        len(rows), length, dtype=torch.float64
    )  # new memory for each piece would cost more than the piece
    for pieces in zip(*(pieces_of(row, length) for row in rows), strict=True):
        wide = [mine[: len(piece)].copy_(piece) for mine, piece in zip(room, pieces, strict=True)]
        products.append(torch.stack([torch.dot(a, b) for a, b in combinations_with_replacement(wide, 2)]))
    upper = torch.triu_indices(len(rows), len(rows))
    gramian = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    gramian[upper[0], upper[1]] = torch.stack(products).sum(dim=0).cpu()
    return gramian + gramian.triu(1).T


def length_on(device: torch.device, lengths: tuple[int, int]) -> int:
    """The one for a CPU, whose caches are small, or the one for an accelerator, whose kernels take long to start."""
    return lengths[device.type != "cpu"]


def pieces_of(row: Sequence[Tensor], length: int) -> Iterator[Tensor]:
    """A row as 1-D pieces that are no longer than that."""
    small = [tensor.reshape(-1) for tensor in row if tensor.numel() < SMALL]
    for tensor in (*(t.reshape(-1) for t in row if t.numel() >= SMALL), *([torch.cat(small)] if small else [])):
        yield from tensor.split_with_sizes([min(length, len(tensor) - start) for start in range(0, len(tensor), length)])
