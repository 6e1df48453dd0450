"""The Gramian of a random projection of the gradients: K m numbers cross the network instead of K N."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mtids_dist.balance.collectives import rank_sum, world_size
from mtids_dist.balance.gramians.agreement import inner_products, pieces_of

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
    :math:`Var[\hat G_{ij}] \le (n_i^2 n_j^2 + G_{ij}^2) / (7 m / 8)`, if no few coordinates hold most of the norm.

    :param m: numbers a task that are sent; the error falls with its root.
    :param seed: of the projection, which is another one in each step and the same on every rank.
    :raises ValueError: an m below 1.
    """

    at_border = False

    def __init__(self, m: int = 4096, seed: int = 0) -> None:
        if m < 1:
            raise ValueError(f"`m` must be at least 1, found {m!r}")
        self.m, self.seed, self._steps = m, seed, 0
        self._pattern = torch.empty(0)

    def agree(self) -> _Sketches:
        """See `Gramian.agree`."""
        self._steps += 1
        return _Sketches(self)

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:  # noqa: ARG002  # whatever the network's size
        """See `Gramian.bytes_sent`: an all-reduce of K m float32 numbers sends twice (R - 1) / R of them."""
        ranks = world_size()
        return 4 * num_tasks * self.m * 2 * (ranks - 1) // ranks

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_kept`: K rows of float32; the pattern of a few MiB comes on top."""
        return 4 * num_tasks * num_parameters

    def pattern(self, length: int, device: torch.device) -> Tensor:
        """Signs [2 length], drawn on the CPU so that every rank and device has the same."""
        if len(self._pattern) != 2 * length or self._pattern.device != device:
            generator = torch.Generator().manual_seed(self.seed)
            self._pattern = (2.0 * torch.randint(2, (2 * length,), generator=generator) - 1).to(device)
        return self._pattern

    def places(self) -> random.Random:
        """Draws where this step's blocks go; the same for each of its rows."""
        return random.Random(f"{self.seed} {self._steps}")  # noqa: S311  # no secret

    def __repr__(self) -> str:
        return f"{type(self).__name__}(m={self.m!r}, seed={self.seed!r})"


class _Sketches:
    def __init__(self, gramian: SketchGramian) -> None:
        self._gramian = gramian
        self._rows: list[Tensor] = []

    def add(self, row: Sequence[Tensor]) -> None:
        """See `Agreement.add`."""
        self._rows.append(self._project(row))

    def gramian(self) -> Tensor:
        """See `Agreement.gramian`."""
        total = rank_sum(torch.stack(self._rows), self._rows[0].device) / world_size()
        return inner_products([[row] for row in total])

    def _project(self, row: Sequence[Tensor]) -> Tensor:
        m, draw = self._gramian.m, self._gramian.places()
        stride = m - draw.randrange(m // 8 + 1)
        # What goes on beyond the last bucket lies behind it and is folded back once.
        twice = torch.zeros(2 * m, dtype=torch.promote_types(row[0].dtype, torch.float32), device=row[0].device)
        for block in self._signed(row, draw):
            offset, sign = draw.randrange(m), draw.choice((-1, 1))
            rounds = len(block) // stride * stride
            if rounds:
                twice[offset : offset + stride].add_(block[:rounds].view(-1, stride).sum(dim=0), alpha=sign)
            twice[offset : offset + len(block) - rounds].add_(block[rounds:], alpha=sign)
        return twice[:m] + twice[m:]

    def _signed(self, row: Sequence[Tensor], draw: random.Random) -> Iterator[Tensor]:
        """Blocks of a gradient, each times a stretch of the pattern, in float32 or wider."""
        for block in pieces_of(row, *BLOCKS):
            length = BLOCKS[block.device.type != "cpu"]
            start = draw.randrange(length)
            yield block * self._gramian.pattern(length, block.device)[start : start + len(block)]
