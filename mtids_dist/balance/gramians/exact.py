"""The Gramian of the mean gradients themselves, each rank with its share of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.distributed as dist
from torch import Tensor

from mtids_dist.balance.collectives import world_size
from mtids_dist.balance.gramians.agreement import inner_products

BUCKETS = 4
"""Exchanges that are under way at once: with a single one, gloo between two ranks sends in one direction at a time."""


class ExactGramian:
    """Exact at any number of ranks.

    Each task's gradient is exchanged while the next task's backward runs: every rank gets its R-th of it from all others and
    adds it up in float32 or wider, and in the end the K x K partial products are summed. K backward passes through the shared
    part. Sends K N (R - 1) / R numbers a step (a plain reduction sends about 2 N (R - 1) / R); at most K + 2 + K / R gradients
    of the shared part are kept.

    An all-to-all, since gloo's reduce-scatter sends as much as an all-reduce; on NCCL it is the same number of bytes as one.
    """

    at_border = False

    def agree(self, step: int) -> _Shares:  # noqa: ARG002  # nothing is drawn
        """See `Gramian.agree`."""
        return _Shares()

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_sent`; of float32 gradients."""
        ranks = world_size()
        return 4 * num_tasks * BUCKETS * -(-num_parameters // (BUCKETS * ranks)) * (ranks - 1)

    def bytes_kept(self, num_tasks: int, num_parameters: int, ranks: int | None = None) -> int:
        """See `Gramian.bytes_kept`; of float32 gradients."""
        ranks = ranks or world_size()
        kept = num_tasks if ranks == 1 else num_tasks + 2 + num_tasks / ranks
        return int(4 * kept * num_parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Shares:
    """This rank's share of each mean gradient; one task's gradient is under way at most."""

    def __init__(self) -> None:
        self._shares: list[Sequence[Tensor]] = []
        self._exchange: _Exchange | None = None

    def add(self, row: Sequence[Tensor]) -> None:
        """See `Agreement.add`."""
        if world_size() == 1:
            self._shares.append(row)
            return
        if self._exchange is None:
            self._exchange = _Exchange(row)
        else:
            self._shares.append(self._exchange.share())
        self._exchange.start(row)

    def part(self) -> Tensor:
        """See `Agreement.part`."""
        if self._exchange is not None:
            self._shares.append(self._exchange.share())
            self._exchange = None
        return inner_products(self._shares)


class _Exchange:
    """Room for one gradient on its way to the other ranks and for what comes from them: a part of each bucket a rank."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._numel = sum(tensor.numel() for tensor in like)
        whole = BUCKETS * world_size()
        widest = reduce(torch.promote_types, (tensor.dtype for tensor in like))
        self._sent = like[0].new_zeros(-(-self._numel // whole) * whole, dtype=widest)  # zeros stay behind the gradient
        self._received = torch.empty_like(self._sent)
        self._works: list[dist.Work] = []

    def start(self, row: Sequence[Tensor]) -> None:
        """Sends a gradient, once the one before has been summed."""
        torch.cat([tensor.reshape(-1) for tensor in row], out=self._sent[: self._numel])
        buckets = zip(self._received.chunk(BUCKETS), self._sent.chunk(BUCKETS), strict=True)
        self._works = [dist.all_to_all_single(received, sent, async_op=True) for received, sent in buckets]

    def share(self) -> Sequence[Tensor]:
        """This rank's share of the mean over ranks, of each bucket."""
        for work in self._works:
            work.wait()
        wide = torch.promote_types(self._received.dtype, torch.float32)
        sums = self._received.view(BUCKETS, world_size(), -1).sum(dim=1, dtype=wide)
        return [(sums / world_size()).reshape(-1)]
