"""ConFIG from the Gramian alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix


class ConFIGWeighting(Weighting[PSDMatrix]):
    r"""ConFIG (Liu et al., ICLR 2025): the direction that makes the same angle with every task's gradient.

    TorchJD has it as a function of the gradients, by the pseudo-inverse of the unit gradients U. Since
    :math:`U^+ = U^\top (U U^\top)^+`, the direction is :math:`J^\top v` with :math:`v = D^{-1} C^+ 1`, C the cosines and D the
    norms; its length is the sum of the gradients' projections on it.
    """

    @torch.no_grad()
    def forward(self, gramian: PSDMatrix, /) -> Tensor:
        """Weights [K] from the Gramian [K, K], of tasks that all have a gradient."""
        G = gramian.to("cpu", torch.float64)
        norms = G.diagonal().sqrt()
        cosines = G / torch.outer(norms, norms)
        # A Gramian is squared: what the gradients' own pseudo-inverse would cut off at eps lies at its root here.
        rounding = len(G) * torch.finfo(gramian.dtype).eps
        direction = torch.linalg.pinv(cosines, rtol=rounding, hermitian=True).sum(dim=1) / norms
        length = (direction @ G @ direction).clamp(min=0).sqrt()
        if length <= rounding * norms.max() * direction.abs().sum():
            return torch.zeros_like(gramian.diagonal())  # opposite gradients have no common direction
        along = (G @ direction).sum() / length
        weights: Tensor = direction * along / length
        return weights.to(gramian)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
