"""What a training loop needs of a balancer, whatever it weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from mtids_dist.balance.info import BalanceInfo


class Balancer(Protocol):
    """What `GradientBalancer` and `LossBalancer` have in common."""

    @property
    def needs_losses_after_step(self) -> bool:
        """Whether `after_step` is to be called."""
        ...

    def backward(self, losses: Mapping[str, Tensor], features: Sequence[Tensor] = ...) -> BalanceInfo:
        """Everything of a step but the step itself."""
        ...

    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        """Shows the same batch's losses after the step."""
        ...

    def end_epoch(self) -> None:
        """Ends an epoch."""
        ...

    def bytes_sent(self, num_tasks: int) -> int:
        """Bytes that a rank sends in a step, besides the data-parallel reduction."""
        ...

    def bytes_kept(self, num_tasks: int) -> int:
        """Bytes of gradients that a rank keeps in a step at most, besides those of a plain step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it goes on from."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back."""
        ...
