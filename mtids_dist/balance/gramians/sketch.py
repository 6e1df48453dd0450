"""The Gramian of a random projection of the gradients: K m numbers cross the network instead of K N."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtids_dist.balance.collectives import rank_sum, world_size
from mtids_dist.balance.gramians.agreement import inner_products

PIECES = 64
"""Pieces that are signed at a time: few enough for a cache."""


class SketchGramian:
    r"""Exact to about :math:`\sqrt{2 / m}` of :math:`n_i n_j` in each entry, at a fraction of the bytes.

    A count sketch (Charikar, Chen & Farach-Colton, 2002): every coordinate is given a random sign and one of m buckets, in which
    signed coordinates are added up. :math:`S` is never there as a matrix: rows are cut into pieces of m, each piece is rolled by
    a random offset, signed, and added. With :math:`\hat G = (J S)(J S)^\top`, :math:`E[\hat G] = G` and
    :math:`Var[\hat G_{ij}] \le (n_i^2 n_j^2 + G_{ij}^2) / m` over the signs, if no few coordinates hold most of the norm.

    :param m: numbers a task that are sent; the error falls with its root.
    :param seed: of the projection, which is another one in each step and the same on every rank.
    :raises ValueError: an m below 1.
    """

    at_border = False

    def __init__(self, m: int = 4096, seed: int = 0) -> None:
        if m < 1:
            raise ValueError(f"`m` must be at least 1, found {m!r}")
        self.m, self.seed, self._steps = m, seed, 0

    def agree(self) -> _Sketches:
        """See `Gramian.agree`."""
        self._steps += 1
        return _Sketches(self.m, self.seed + self._steps)

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:  # noqa: ARG002  # whatever the network's size
        """See `Gramian.bytes_sent`: an all-reduce of K m float32 numbers sends twice (R - 1) / R of them."""
        ranks = world_size()
        return 4 * num_tasks * self.m * 2 * (ranks - 1) // ranks

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_kept`: K rows of float32, and a sign a parameter."""
        return (4 * num_tasks + 1) * num_parameters

    def __repr__(self) -> str:
        return f"{type(self).__name__}(m={self.m!r}, seed={self.seed!r})"


class _Sketches:
    def __init__(self, m: int, seed: int) -> None:
        self._m, self._seed = m, seed
        self._signs: Tensor | None = None
        self._offsets: list[int] = []
        self._rows: list[Tensor] = []

    def add(self, row: Tensor) -> None:
        """See `Agreement.add`."""
        self._rows.append(self._project(row))

    def gramian(self) -> Tensor:
        """See `Agreement.gramian`."""
        total = rank_sum(torch.stack(self._rows), self._rows[0].device) / world_size()
        return inner_products(list(total))

    def _project(self, row: Tensor) -> Tensor:
        m, signs = self._m, self._drawn(len(row), row.device)
        wide = torch.promote_types(row.dtype, torch.float32)
        # A piece that is rolled beyond the end goes on behind it; what lies there is folded back once.
        twice = torch.zeros(2 * m, dtype=wide, device=row.device)
        offsets = iter(self._offsets)
        for part, signs_of_part in zip(torch.split(row, PIECES * m), torch.split(signs, PIECES * m), strict=True):
            for piece in torch.split(part.to(wide) * signs_of_part, m):
                offset = next(offsets)
                twice[offset : offset + len(piece)] += piece
        return twice[:m] + twice[m:]

    def _drawn(self, length: int, device: torch.device) -> Tensor:
        """Signs [length] and an offset a piece, drawn on the CPU so that every rank and device has the same."""
        if self._signs is None:
            rng = np.random.default_rng(self._seed)
            bits = np.unpackbits(np.frombuffer(rng.bytes(-(-length // 8)), dtype=np.uint8), count=length)
            self._signs = torch.from_numpy(bits.view(np.int8)).mul_(2).sub_(1).to(device)
            self._offsets = rng.integers(0, self._m, -(-length // self._m)).tolist()
        return self._signs
