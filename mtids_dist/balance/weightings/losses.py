"""Weightings that look at the losses beside the Gramian: GradNorm and DB-MTL, which TorchJD lacks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torchjd import Stateful
from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.weightings.activity import active_tasks

_SMALLEST_LOSS = 1e-8
_SMALLEST_WEIGHT = 1e-4


@runtime_checkable
class SeesLosses(Protocol):
    """A weighting that is shown the losses of a step before it is asked for weights."""

    def observe(self, losses: Tensor) -> None:
        """Takes the mean losses [K] over ranks and micro-batches."""
        ...


class _FromNormsAndLosses(Weighting[PSDMatrix]):
    """Weights from the norms n [K] of the gradients and the losses [K], float64 on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self._losses: Tensor | None = None

    def observe(self, losses: Tensor) -> None:
        """See `SeesLosses.observe`."""
        self._losses = losses.detach().to("cpu", torch.float64)

    @torch.no_grad()
    def forward(self, gramian: PSDMatrix, /) -> Tensor:
        """Weights [K] from the Gramian [K, K] and the losses that were observed."""
        if self._losses is None or len(self._losses) != len(gramian):
            found = "none" if self._losses is None else f"{len(self._losses)}"
            raise ValueError(f"losses of {len(gramian)} tasks must be observed before weights are asked for, found {found}")
        norms = gramian.diagonal().clamp(min=0).sqrt().to("cpu", torch.float64)
        return self._weigh(norms, self._losses, torch.from_numpy(active_tasks(norms.numpy()))).to(gramian)

    @abstractmethod
    def _weigh(self, norms: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        """Weights [K]; `active` [K]: which tasks have a gradient."""


class GradNormWeighting(_FromNormsAndLosses, Stateful):
    r"""GradNorm (Chen et al., ICML 2018): weights that are learned until tasks train at similar rates.

    With :math:`n_k` the norm of task k's gradient, :math:`\bar n` the mean of :math:`w_k n_k` and
    :math:`r_k = (L_k / L_k(0)) / \mathrm{mean}_j (L_j / L_j(0))`, a step of gradient descent is taken on
    :math:`\sum_k |w_k n_k - \bar n r_k^\alpha|` with :math:`\bar n` and r held fixed, and the weights are scaled to sum up to K.

    The paper takes the norms at the last shared layer; here they come from the Gramian's diagonal, so from all shared parameters
    (or from the border). The descent is on the sum divided by :math:`\bar n`, so that its rate does not depend on the gradients'
    scale, and no weight falls below 1e-4. A step is weighted with the weights before its own descent, as in the paper. A task
    without gradient keeps its weight and counts in no mean.

    :param alpha: how strongly slow tasks are pulled; 0 makes weighted norms equal.
    :param learning_rate: of the descent on the weights.
    :raises ValueError: a parameter out of its range.
    """

    def __init__(self, alpha: float = 1.5, learning_rate: float = 0.025) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"`alpha` must be at least 0, found {alpha!r}")
        if not learning_rate > 0:
            raise ValueError(f"`learning_rate` must be above 0, found {learning_rate!r}")
        self.alpha, self.learning_rate = alpha, learning_rate
        self.reset()

    def reset(self) -> None:
        """Forgets the weights and the first losses."""
        self._weights: Tensor | None = None
        self._first: Tensor | None = None  # losses [K], nan for a task that was never active
        self._losses: Tensor | None = None

    def _weigh(self, norms: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        """Moves the weights on by one step, for the next one."""
        if self._weights is None or self._first is None:
            self._weights, self._first = torch.ones_like(norms), torch.full_like(norms, torch.nan)
        self._first = torch.where(active & self._first.isnan(), losses, self._first)
        weights = self._weights
        if active.any():
            self._weights = self._descend(weights, norms, losses / self._first.clamp(min=_SMALLEST_LOSS), active)
        return weights

    def _descend(self, weights: Tensor, norms: Tensor, left: Tensor, active: Tensor) -> Tensor:
        weighted = weights * norms
        mean = weighted[active].mean()
        target = mean * (left / left[active].mean()) ** self.alpha
        gradient = torch.where(active, torch.sign(weighted - target) * norms / mean, 0.0)
        moved = (weights - self.learning_rate * gradient).clamp(min=_SMALLEST_WEIGHT)
        return moved * len(moved) / moved.sum()

    def get_extra_state(self) -> dict[str, Any]:
        """The weights and the first losses (None before the first step)."""
        return {"weights": self._weights, "first": self._first}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts them back, also into a fresh object."""
        self._weights, self._first = state["weights"], state["first"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha!r}, learning_rate={self.learning_rate!r})"


class DBMTLWeighting(_FromNormsAndLosses):
    r"""DB-MTL (Lin et al., "Dual-Balancing for Multi-Task Learning", 2023) without its running average of gradients (beta = 0).

    Every task's gradient of :math:`\log L_k`, which is :math:`g_k / L_k`, is brought to the norm of the longest one:
    :math:`w_k = \max_j (n_j / L_j) / n_k`. A task without gradient gets 1. Private parameters take the gradient of the loss
    itself here, as everywhere in this package, not of its logarithm.
    """

    def _weigh(self, norms: Tensor, losses: Tensor, active: Tensor) -> Tensor:
        weights = torch.ones_like(norms)
        if active.any():
            longest = (norms / losses.clamp(min=_SMALLEST_LOSS))[active].max()
            weights[active] = longest / norms[active]
        return weights

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
