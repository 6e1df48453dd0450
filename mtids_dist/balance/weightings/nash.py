"""Nash-MTL from the Gramian alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchjd import Stateful
from torchjd.aggregation import NashMTL, Weighting
from torchjd.linalg import PSDMatrix


class NashMTLWeighting(Weighting[PSDMatrix], Stateful):
    r"""Nash-MTL (Navon et al., ICML 2022) by TorchJD's solver, which wants the gradients themselves.

    It uses nothing of them but their inner products and the norm of the update, so a square root of the Gramian,
    :math:`R R^\top = G` with R [K, K], serves as well. Needs the extra `nash_mtl` (cvxpy and ecos).

    :param max_norm: the update is shortened to this norm; 0 leaves it.
    :param optim_niter: steps of the sequential convex solver.
    :raises ValueError: the extra is missing, or a parameter is out of its range.
    """

    def __init__(self, max_norm: float = 1.0, optim_niter: int = 20) -> None:
        super().__init__()
        self.max_norm, self.optim_niter = max_norm, optim_niter
        self._solver(num_tasks=1)  # refuses what it can't do before the first step
        self._methods: list[Any] = []  # at most one; in a list, so that torch does not take it for a part of this module
        self._saved: dict[str, Any] | None = None

    def reset(self) -> None:
        """Forgets where the solver stood."""
        self._methods, self._saved = [], None

    @torch.no_grad()
    def forward(self, gramian: PSDMatrix, /) -> Tensor:
        """Weights [K] from the Gramian [K, K]; those that the solver found last where it finds none."""
        if not self._methods:
            self._methods = [self._begin(len(gramian))]
        eigenvalues, vectors = torch.linalg.eigh(gramian.to("cpu", torch.float64))
        root = vectors * eigenvalues.clamp(min=0).sqrt()
        weights: Tensor = self._methods[0](root)
        return weights.to(gramian)

    def _solver(self, num_tasks: int) -> Any:
        return NashMTL(n_tasks=num_tasks, max_norm=self.max_norm, optim_niter=self.optim_niter).weighting

    def _begin(self, num_tasks: int) -> Any:
        method = self._solver(num_tasks)
        if self._saved is not None:
            method.prvs_alpha = np.array(self._saved["alpha"])
            method.normalization_factor = np.array(self._saved["normalization_factor"])
        return method

    def get_extra_state(self) -> dict[str, Any]:
        """Where the solver starts from (None before the first step)."""
        if not self._methods:
            return {"solver": self._saved}
        method = self._methods[0]
        return {"solver": {"alpha": method.prvs_alpha.tolist(), "normalization_factor": method.normalization_factor.tolist()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts it back, also into a fresh object."""
        self._methods, self._saved = [], state["solver"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_norm={self.max_norm!r}, optim_niter={self.optim_niter!r})"
