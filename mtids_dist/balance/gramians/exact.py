"""The Gramian of the mean gradients themselves, each rank with its share of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from mtids_dist.balance.collectives import rank_sum, world_size
from mtids_dist.balance.gramians.agreement import inner_products
from mtids_dist.balance.rows import flat


class ExactGramian:
    """Exact at any number of ranks.

    Each task's gradient is exchanged while the next task's backward runs: every rank gets its R-th of it from all others and
    adds it up in float32 or wider, and in the end the K x K partial products are summed. K backward passes through the shared
    part. Sends K N (R - 1) / R numbers a step (a plain reduction sends about 2 N (R - 1) / R); at most K + 2 + K / R gradients
    of the shared part are kept.

    An all-to-all, since gloo's reduce-scatter sends as much as an all-reduce; on NCCL it is the same number of bytes as one.
    """

    at_border = False

    def agree(self) -> _Shares:
        """See `Gramian.agree`."""
        return _Shares()

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_sent`; of float32 gradients."""
        ranks = world_size()
        return 4 * num_tasks * -(-num_parameters // ranks) * (ranks - 1)

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_kept`; of float32 gradients."""
        ranks = world_size()
        kept = num_tasks if ranks == 1 else num_tasks + 2 + num_tasks / ranks
        return int(4 * kept * num_parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Shares:
    """This rank's share of each mean gradient; at most one exchange is under way."""

    def __init__(self) -> None:
        self._shares: list[Sequence[Tensor]] = []
        self._under_way: tuple[dist.Work, Tensor, Tensor] | None = None

    def add(self, row: Sequence[Tensor]) -> None:
        """See `Agreement.add`."""
        if world_size() == 1:
            self._shares.append(row)
            return
        self._finish()
        whole = flat(row, multiple_of=world_size())
        parts = torch.empty_like(whole)
        work = dist.all_to_all_single(parts, whole, async_op=True)
        self._under_way = (work, parts, whole)

    def gramian(self) -> Tensor:
        """See `Agreement.gramian`."""
        self._finish()
        return rank_sum(inner_products(self._shares), self._shares[0][0].device)

    def _finish(self) -> None:
        if self._under_way is None:
            return
        work, parts, _ = self._under_way
        self._under_way = None
        work.wait()
        wide = torch.promote_types(parts.dtype, torch.float32)
        self._shares.append([parts.view(world_size(), -1).sum(dim=0, dtype=wide) / world_size()])
