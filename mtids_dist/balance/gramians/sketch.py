"""The Gramian of a random projection of the gradients: K m numbers cross the network instead of K N."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mtids_dist.balance.collectives import rank_sum, world_size
from mtids_dist.balance.gramians.agreement import inner_products, length_on, pieces_of

BLOCKS = 1 << 18, 1 << 22
"""Coordinates that are projected at a time, on a CPU and on an accelerator."""


class SketchGramian:
    r"""Exact to about :math:`\sqrt{2 / m}` of :math:`n_i n_j` in each entry, at a fraction of the bytes.

    A count sketch (Charikar, Chen & Farach-Colton, 2002): every coordinate is given a random sign and one of m buckets, in which
    signed coordinates are added up. :math:`S` is never there as a matrix, nor is a sign a coordinate drawn in every step: a block
    of coordinates takes its signs from a random place in a pattern that was drawn once, times a random sign of its own, and its
    coordinates go round the buckets from a random one on. How many buckets a round takes, between 7 m / 8 and m, is random, too:
    no layout of a parameter can be in step with it.

    With :math:`\hat G = (J S)(J S)^\top`, :math:`E[\hat G] = G` and
    :math:`Var[\hat G_{ij}] \le (n_i^2 n_j^2 + G_{ij}^2) / (7 m / 8)` over seeds, if no few coordinates hold most of
    the norm; the steps of one seed share the pattern, and so a part of their errors.

    :param m: numbers a task that are sent; the error falls with its root.
    :param seed: of the projection, which is another one in each step and the same on every rank.
    :raises ValueError: an m below 1.
    """

    at_border = False

    def __init__(self, m: int = 4096, seed: int = 0) -> None:
        if m < 1:
            raise ValueError(f"`m` must be at least 1, found {m!r}")
        self.m, self.seed = m, seed
        self._pattern = self._room = torch.empty(0)

    def agree(self, step: int) -> _Sketches:
        """See `Gramian.agree`."""
        return _Sketches(self, step)

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:  # noqa: ARG002  # whatever the network's size
        """See `Gramian.bytes_sent`: an all-reduce of K m float32 numbers sends twice (R - 1) / R of them."""
        ranks = world_size()
        return 4 * num_tasks * self.m * 2 * (ranks - 1) // ranks

    def bytes_kept(self, num_tasks: int, num_parameters: int, ranks: int | None = None) -> int:  # noqa: ARG002  # whatever R is
        """See `Gramian.bytes_kept`: K rows of float32; a few MiB come on top."""
        return 4 * num_tasks * num_parameters

    def pattern(self, length: int, device: torch.device) -> Tensor:
        """Signs [2 length], drawn on the CPU so that every rank and device has the same."""
        if len(self._pattern) != 2 * length or self._pattern.device != device:
            generator = torch.Generator().manual_seed(self.seed)
            self._pattern = (2.0 * torch.randint(2, (2 * length,), generator=generator) - 1).to(device)
        return self._pattern

    def room(self, num_tasks: int, length: int, like: Tensor) -> Tensor:
        """[K, length] in float32 or wider, used again in each step: new memory costs more than what is written there."""
        wide = torch.promote_types(like.dtype, torch.float32)
        if self._room.shape != (num_tasks, length) or (self._room.dtype, self._room.device) != (wide, like.device):
            self._room = torch.empty(num_tasks, length, dtype=wide, device=like.device)
        return self._room

    def __repr__(self) -> str:
        return f"{type(self).__name__}(m={self.m!r}, seed={self.seed!r})"


class _Sketches:
    """Projects all rows at the end, block by block, so that each stretch of the pattern is read once."""

    def __init__(self, gramian: SketchGramian, step: int) -> None:
        self._gramian, self._step = gramian, step
        self._rows: list[Sequence[Tensor]] = []

    def add(self, row: Sequence[Tensor]) -> None:
        """See `Agreement.add`."""
        self._rows.append(row)

    def part(self) -> Tensor:
        """See `Agreement.part`: every rank has the whole Gramian, so its part is an R-th."""
        mine = self._projected()
        mean = rank_sum(mine, mine.device) / world_size()
        return inner_products([[row] for row in mean]) / world_size()

    def _projected(self) -> Tensor:
        """[K, m] in float32 or wider."""
        m, first = self._gramian.m, self._rows[0][0]
        draw = random.Random(f"{self._gramian.seed} {self._step}")  # noqa: S311  # where blocks go is no secret
        length, stride = length_on(first.device, BLOCKS), m - draw.randrange(m // 8 + 1)
        pattern = self._gramian.pattern(length, first.device)
        signed = self._gramian.room(len(self._rows), length, first)
        # What goes on beyond the last bucket lies behind it and is folded back once.
        twice = signed.new_zeros(len(self._rows), 2 * m)
        for pieces in zip(*(pieces_of(row, length) for row in self._rows), strict=True):
            size, start = len(pieces[0]), draw.randrange(length)
            for room, piece in zip(signed, pieces, strict=True):
                torch.mul(piece, pattern[start : start + size], out=room[:size])
            _go_round(signed[:, :size], stride, twice[:, draw.randrange(m) :], draw.choice((-1, 1)))
        return twice[:, :m] + twice[:, m:]


def _go_round(signed: Tensor, stride: int, buckets: Tensor, sign: int) -> None:
    """Adds blocks [K, size] to buckets [K, ...], `stride` of them a round."""
    num_tasks, size = signed.shape
    rounds = size // stride
    buckets[:, :stride].add_(signed[:, : rounds * stride].view(num_tasks, rounds, stride).sum(dim=1), alpha=sign)
    buckets[:, : size - rounds * stride].add_(signed[:, rounds * stride :], alpha=sign)
