"""DD-GB: Dual-Dimensional Gradient Balancing, as a function of the Gramian of the task gradients.

This is our documented reading of the abstract of Ma et al. (Neural Networks 198:108541, 2026), whose equations are not
public: "gradient balance is achieved through alignment of gradient directions and dynamic scaling of magnitudes, while
the distribution of inter-task gradient characteristics is maintained".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import nnls
from torch import Tensor
from torchjd import Stateful
from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.weightings.activity import active_tasks

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


class DDGBWeighting(Weighting[PSDMatrix], Stateful):
    r"""Weights of DD-GB from the Gramian :math:`G = J J^\top` [K, K] of the task gradients, averaged over all ranks first.

    With :math:`n_k = \sqrt{G_{kk}}` and :math:`\mu_k` the running average of :math:`\log n_k`,

    - magnitude: :math:`s_k = \exp(\tau(\bar\mu - \mu_k))` and :math:`\eta_k = s_k n_k`, the norm that task k is given;
    - direction: :math:`y^{(k)} = \arg\min \{y^\top (C + \rho I) y : y \ge \eta_k e_k\}` with the cosines :math:`C`;
    - weights: :math:`w_k = \frac{1}{K n_k} \sum_i y^{(i)}_k`; a task without gradient gets :math:`1/K`.

    No task is harmed to first order by :math:`d = \sum_k w_k g_k`, none is silenced (:math:`w_k \ge s_k / K`), and
    :math:`\|d\|` is at most the mean of :math:`\eta`. tau = 0 is UPGrad without its ridge, tau = 1 makes norms equal.

    :param tau: how far the norms are drawn together, in [0, 1]; with `dynamic`, the upper limit of it.
    :param beta: decay of the running average of log norms, in [0, 1); 0 uses the present norms only.
    :param dynamic: tau_t = tau (1 - mean over pairs of 2 m_i m_j / (m_i^2 + m_j^2)), m = exp(mu): equal norms are left alone.
    :param direction: False leaves the direction part out (an ablation).
    :param max_ratio: running norms below the largest by more than this ratio count as that far below, no more.
    :raises ValueError: a parameter out of its range, or a Gramian that is not a square matrix.

    Computed in float64 on the CPU, since K is small; the weights come back with the Gramian's dtype and device.
    A Gramian with nan or inf gives nan weights and leaves the state as it was.
    """

    def __init__(
        self, tau: float = 0.5, beta: float = 0.5, dynamic: bool = False, direction: bool = True, max_ratio: float = 1e3
    ) -> None:
        super().__init__()
        if not 0.0 <= tau <= 1.0:
            raise ValueError(f"`tau` must be in [0, 1], found {tau!r}")
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"`beta` must be in [0, 1), found {beta!r}")
        if not max_ratio >= 1.0:
            raise ValueError(f"`max_ratio` must be at least 1, found {max_ratio!r}")
        self.tau, self.beta, self.dynamic, self.direction, self.max_ratio = tau, beta, dynamic, direction, max_ratio
        self._mu: Vector | None = None  # [K], nan for a task that never had a gradient

    def reset(self) -> None:
        """Forgets the running norms."""
        self._mu = None

    @torch.no_grad()
    def forward(self, gramian: PSDMatrix, /) -> Tensor:
        """Weights [K] from the Gramian [K, K]; moves the running norms on by one step."""
        if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1]:
            raise ValueError(f"`gramian` must be a square matrix, found shape {tuple(gramian.shape)}")
        G: Matrix = gramian.detach().to("cpu", torch.float64).numpy()
        if not np.isfinite(G).all():
            return torch.full_like(gramian.diagonal(), math.nan)
        ridge = max(1e-8, 8 * torch.finfo(gramian.dtype).eps)
        return torch.from_numpy(self._weights(G, ridge)).to(gramian)

    def _weights(self, G: Matrix, ridge: float) -> Vector:
        K = len(G)
        weights = np.full(K, 1.0 / K)
        norms = np.sqrt(G.diagonal().clip(min=0.0))
        active = active_tasks(norms)
        self._observe(norms, active)
        if active.any():
            scales = self._scales()[active]
            cosines = G[np.ix_(active, active)] / np.outer(norms[active], norms[active])
            shares = _least_conflict(cosines, ridge) if self.direction else np.eye(len(scales))
            weights[active] = (scales * norms[active]) @ shares / (K * norms[active])
        return weights

    def _observe(self, norms: Vector, active: npt.NDArray[np.bool_]) -> None:
        if self._mu is None or len(self._mu) != len(norms):
            self._mu = np.full(len(norms), math.nan)
        log_norms = np.log(norms, where=active, out=np.full(len(norms), math.nan))
        first = active & np.isnan(self._mu)
        self._mu = np.where(first, log_norms, np.where(active, self.beta * self._mu + (1 - self.beta) * log_norms, self._mu))

    def _scales(self) -> Vector:
        """The factors s [K] on the gradients; nan for a task that never had a gradient."""
        assert self._mu is not None
        mu = np.maximum(self._mu, np.nanmax(self._mu) - math.log(self.max_ratio))
        scales: Vector = np.exp(self._tau(mu) * (np.nanmean(mu) - mu))
        return scales

    def _tau(self, mu: Vector) -> float:
        seen = mu[~np.isnan(mu)]
        if not self.dynamic or len(seen) < 2:
            return self.tau
        # 2 m_i m_j / (m_i^2 + m_j^2) = 1 / cosh(mu_i - mu_j), free of overflow.
        likeness = 1.0 / np.cosh(seen[:, None] - seen[None, :])
        return float(self.tau * (1.0 - likeness[np.triu_indices(len(seen), 1)].mean()))

    def get_extra_state(self) -> dict[str, Any]:
        """The running norms, for `state_dict` (None before the first step)."""
        return {"mu": None if self._mu is None else self._mu.tolist()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts saved running norms back, also into a fresh object."""
        self._mu = None if state["mu"] is None else np.array(state["mu"], dtype=np.float64)

    def __repr__(self) -> str:
        options = f"tau={self.tau!r}, beta={self.beta!r}, dynamic={self.dynamic!r}, direction={self.direction!r}"
        return f"{type(self).__name__}({options}, max_ratio={self.max_ratio!r})"


def _least_conflict(cosines: Matrix, ridge: float) -> Matrix:
    """Rows y^(k) / eta_k [K, K]: the smallest combination that gives task k at least its own gradient.

    With y = e_k + v, v >= 0 and R^T R = C + ridge I, this is the non-negative least squares problem |R v + R e_k|.
    """
    eigenvalues, vectors = np.linalg.eigh((cosines + cosines.T) / 2)
    # Rounding can push an eigenvalue of a rank-deficient C below zero: the ridge is its floor, too.
    root = np.sqrt(np.maximum(eigenvalues + ridge, ridge))[:, None] * vectors.T
    K = len(cosines)
    return np.stack([np.eye(K)[k] + nnls(root, -root[:, k], maxiter=100 * K)[0] for k in range(K)])
