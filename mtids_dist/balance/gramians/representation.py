"""The Gramian of the gradients at the border between shared and private parts: next to free, and a stand-in."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtids_dist.balance.collectives import world_size
from mtids_dist.balance.gramians.agreement import inner_products


class RepresentationGramian:
    """One backward through the shared part, whatever K is.

    With U [K, B] the task gradients of this rank at the border tensors, G = (sum over ranks of U U^T) / R^2: samples differ
    between ranks, so features are never averaged. Sends K x K numbers. Its guarantees hold for the border gradients; in about
    half of random draws a conflict is left between the gradients of the parameters (MGDA's upper bound, Sener & Koltun,
    NeurIPS 2018, makes the same trade).

    `features` must be given, and no border tensor may depend on another one.
    """

    at_border = True

    def agree(self, step: int) -> _Products:  # noqa: ARG002  # nothing is drawn
        """See `Gramian.agree`."""
        return _Products()

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:  # noqa: ARG002  # whatever the network's size
        """See `Gramian.bytes_sent`."""
        return 8 * (num_tasks**2 + 1) if world_size() > 1 else 0

    def bytes_kept(self, num_tasks: int, num_parameters: int, ranks: int | None = None) -> int:  # noqa: ARG002
        """See `Gramian.bytes_kept`; K gradients of the border tensors, which grow with the batch alone, come on top."""
        return 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _Products:
    def __init__(self) -> None:
        self._rows: list[Sequence[Tensor]] = []

    def add(self, row: Sequence[Tensor]) -> None:
        """See `Agreement.add`."""
        self._rows.append(row)

    def part(self) -> Tensor:
        """See `Agreement.part`."""
        return inner_products(self._rows) / world_size() ** 2
