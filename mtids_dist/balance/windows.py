"""One step's gradients of this rank, from micro-batch to micro-batch: at the shared parameters, or through the border.

Legend: K tasks, N shared parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from mtids_dist.balance.differentiate import AtBorder, at_parameters
from mtids_dist.balance.gramians.agreement import Agreement
from mtids_dist.balance.rows import Row, add_to, all_finite, combine, merged


class Window(Protocol):
    """Sums over the micro-batches of a step. Nothing here waits for a device."""

    private: dict[nn.Parameter, Tensor]
    """Each private parameter's gradient, of its own losses only."""
    is_weighted: bool
    """Whether micro-batches are weighted as they come, with weights of a step before."""

    def take(self, losses: Sequence[Tensor], features: Sequence[Tensor], private: Sequence[nn.Parameter], *, ends: bool) -> None:
        """Differentiates a micro-batch; `ends`: it is the last one."""
        ...

    def part(self) -> Tensor | None:
        """This rank's part [K, K] of the step's Gramian, on its device; the parts of all ranks add up to it. None where no
        weights are to be found. A collective."""
        ...

    def shared(self, weights: Tensor) -> list[Tensor | None]:
        """The weighted gradient on each shared parameter, asked for once; weights that came too late for it don't matter."""
        ...

    def finite(self) -> Tensor:
        """[K] whether each task's gradients of this rank are free of nan and inf."""
        ...


class ParameterWindow:
    """Keeps K rows until the window ends; then each is on its way to the other ranks while the next one is completed."""

    is_weighted = False

    def __init__(self, agreement: Agreement, parameters: Sequence[nn.Parameter]) -> None:
        self.private: dict[nn.Parameter, Tensor] = {}
        self._agreement, self._parameters = agreement, parameters
        self._rows: list[Row] = []
        self._micro_batches = 0

    def take(
        self,
        losses: Sequence[Tensor],
        features: Sequence[Tensor],  # noqa: ARG002  # none are needed here
        private: Sequence[nn.Parameter],
        *,
        ends: bool,
    ) -> None:
        """See `Window.take`."""
        for k, (row, own) in enumerate(at_parameters(losses, self._parameters, private)):
            if k < len(self._rows):
                add_to(self._rows[k], row)
            else:
                self._rows.append(row)
            del row  # else it would lie beside the sum through the next backward
            self.private = merged(self.private, own)
            if ends:
                self._agreement.add(self._rows[k])
        self._micro_batches += 1

    def part(self) -> Tensor:
        """See `Window.part`."""
        return self._agreement.part() / self._micro_batches**2

    def shared(self, weights: Tensor) -> list[Tensor | None]:
        """See `Window.shared`."""
        return [*combine(weights, self._rows)]

    def finite(self) -> Tensor:
        """See `Window.finite`; a broken private gradient counts for every task, as far as no task is broken by itself."""
        shared = torch.stack([all_finite(row, row[0].device) for row in self._rows])
        return torch.where(shared.all(), all_finite(list(self.private.values()), shared.device), shared)


class BorderWindow:
    """One backward through the shared part a micro-batch.

    :param agree: begins to find weights, for this step where it is a single micro-batch, else for the next; None: not now.
    :param weights: [K], applied to each micro-batch as it comes; None: those that are found, which takes a single micro-batch.
    """

    def __init__(self, agree: Callable[[], Agreement] | None, parameters: Sequence[nn.Parameter], weights: Tensor | None) -> None:
        self.private: dict[nn.Parameter, Tensor] = {}
        self._agree, self._parameters, self._weights = agree, parameters, weights
        self.is_weighted = weights is not None
        self._part: Tensor | None = None
        self._waiting: AtBorder | None = None
        self._shared: dict[nn.Parameter, Tensor] = {}
        self._finite: Tensor | None = None  # [K] whether all micro-batches were, at the border
        self._micro_batches = 0

    def take(
        self,
        losses: Sequence[Tensor],
        features: Sequence[Tensor],
        private: Sequence[nn.Parameter],
        *,
        ends: bool,  # noqa: ARG002  # nothing waits for the end
    ) -> None:
        """See `Window.take`."""
        border = AtBorder(losses, features, private)
        finite = border.finite()
        self._finite = finite if self._finite is None else self._finite & finite
        self.private = merged(self.private, border.private)
        self._micro_batches += 1
        if self._agree is not None:
            self._observe(border, self._agree())
        if self._weights is None:
            self._waiting = border
        else:
            self._add(border, self._weights)

    def part(self) -> Tensor | None:
        """See `Window.part`."""
        return None if self._part is None else self._part / self._micro_batches**2

    def shared(self, weights: Tensor) -> list[Tensor | None]:
        """See `Window.shared`."""
        if self._waiting is not None:
            self._add(self._waiting, weights)
            self._waiting = None
        return [self._shared.get(parameter) for parameter in self._parameters]

    def finite(self) -> Tensor:
        """See `Window.finite`; a broken gradient whose task can't be told counts for every task, as far as no task is broken by
        itself."""
        assert self._finite is not None, "a window has at least one micro-batch"
        others = all_finite([*self.private.values(), *self._shared.values()], self._finite.device)
        return torch.where(self._finite.all(), others, self._finite)

    def _observe(self, border: AtBorder, agreement: Agreement) -> None:
        for row in border.rows:
            agreement.add(row)
        part = agreement.part()
        self._part = part if self._part is None else self._part + part

    def _add(self, border: AtBorder, weights: Tensor) -> None:
        found = zip(self._parameters, border.shared_gradients(weights, self._parameters), strict=True)
        self._shared = merged(self._shared, {parameter: gradient for parameter, gradient in found if gradient is not None})
