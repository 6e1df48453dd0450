"""How the ranks agree on the Gramian of the task gradients: what each way differentiates, sends and keeps.

Legend: K tasks, N shared parameters, R ranks, B numbers in the border tensors of a rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from mtids_dist.balance.rows import NARROW

RUN = 1 << 12
"""Numbers that are multiplied and added up in the rows' precision on a CPU, before sums go on in float64: the error of an inner
product stays below 1e-8 of the rows' norms, and nothing has to be written in float64 first."""
MANY = 1 << 16
"""Numbers from which on that is done: fewer are soon in float64, and have fewer runs whose errors could level out."""
PIECES = 1 << 18, 1 << 23
"""Numbers of a row that are worked on at a time, on a CPU and on an accelerator; whole runs."""


class Agreement(Protocol):
    """The Gramian of one step, from this rank's rows, one task after the other; every rank adds the same tasks in turn."""

    def add(self, row: Sequence[Tensor]) -> None:
        """Takes the next task's row of this rank, a tensor a parameter (or border tensor), which must stay as it is until
        `part`; may begin to send it."""
        ...

    def part(self) -> Tensor:
        """This rank's part [K, K] of the Gramian, float64 on the rows' device; the parts of all ranks add up to it. A
        collective."""
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

    def bytes_kept(self, num_tasks: int, num_parameters: int, ranks: int | None = None) -> int:
        """Bytes of gradients that each of so many ranks (None: of those that there are) keeps in a step at most, besides those
        of a plain step."""
        ...


def inner_products(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """J J^T [K, K] in float64 on the rows' device, for which nothing waits; rows are lists of tensors in any precision."""
    length = length_on(rows[0][0].device, PIECES)
    products = [_products(pieces) for pieces in zip(*(pieces_of(row, length) for row in rows), strict=True)]
    return products[0] if len(products) == 1 else torch.stack(products).sum(dim=0)


def _products(pieces: Sequence[Tensor]) -> Tensor:
    """J J^T [K, K] in float64, of K pieces of one length, in batches of runs."""
    size = len(pieces[0])
    run = RUN if size % RUN == 0 else size
    X_nKr = torch.stack([piece.view(-1, run) for piece in pieces], dim=1)
    # Float64 where it costs little, and where float32 may be multiplied in less: on an accelerator in TF32, on a CPU if told so.
    exact = size < MANY or X_nKr.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest"
    X_nKr = X_nKr.double() if exact else X_nKr.float() if X_nKr.dtype in NARROW else X_nKr
    return torch.bmm(X_nKr, X_nKr.mT).sum(dim=0, dtype=torch.float64)


def length_on(device: torch.device, lengths: tuple[int, int]) -> int:
    """The one for a CPU, whose caches are small, or the one for an accelerator, whose kernels take long to start."""
    return lengths[device.type != "cpu"]


def pieces_of(row: Sequence[Tensor], length: int) -> Iterator[Tensor]:
    """A row as 1-D pieces of `length` or less: whole runs of its large tensors, then what is left of all tensors together.

    :param length: whole runs.
    """
    left = []
    for tensor in row:
        *pieces, rest = _cut(tensor.reshape(-1), length)
        yield from pieces
        left += [rest] if len(rest) else []
    if left:
        yield from (piece for piece in _cut(torch.cat(left) if len(left) > 1 else left[0], length) if len(piece))


def _cut(flat: Tensor, length: int) -> Sequence[Tensor]:
    """Pieces of a 1-D tensor that are whole runs, and last what is left."""
    whole = len(flat) // RUN * RUN
    sizes = [min(length, whole - start) for start in range(0, whole, length)]
    return flat.split_with_sizes([*sizes, len(flat) - whole])
