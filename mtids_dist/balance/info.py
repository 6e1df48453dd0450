"""What a balanced step tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BalanceInfo:
    """What was decided in a step: task names, their weights [K] and the Gramian [K, K], both float64 on the CPU.

    :param balanced: whether weights were found in this step; if not, an earlier step's served, and the Gramian is that one's.
    :param complete: whether gradients were handed over: False within an accumulation window.
    :param skipped: a gradient was not finite and the balancer was told to skip such steps: do not step on engine or optimizer.
    """

    tasks: tuple[str, ...]
    weights: Tensor
    gramian: Tensor
    balanced: bool = True
    complete: bool = True
    skipped: bool = False

    @property
    def norms(self) -> Tensor:
        """Norms [K] of the task gradients on the shared parameters (or at the border, where the Gramian is of those)."""
        return self.gramian.diagonal().clamp(min=0).sqrt()

    @property
    def cosines(self) -> Tensor:
        """Cosines [K, K] between the task gradients; 0 beside a task without gradient."""
        outer = torch.outer(self.norms, self.norms)
        return torch.where(outer > 0, self.gramian / outer, 0.0).clamp(-1, 1)

    @property
    def conflicts(self) -> tuple[tuple[str, str], ...]:
        """Pairs of tasks whose gradients point against each other."""
        rows, columns = torch.triu(self.cosines < 0, diagonal=1).nonzero(as_tuple=True)
        return tuple((self.tasks[i], self.tasks[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True))

    @property
    def progress(self) -> Tensor:
        """<d, g_k> / n_k [K]: how far the update d goes along each task's gradient, in the gradients' own unit; below 0 a task is
        harmed to first order. 0 beside a task without gradient."""
        along = self.gramian @ self.weights
        return torch.where(self.norms > 0, along / self.norms, 0.0)

    @property
    def plain_progress(self) -> Tensor:
        """The same of the plain mean of the gradients: what balancing changed is the difference."""
        along = self.gramian.mean(dim=1)
        return torch.where(self.norms > 0, along / self.norms, 0.0)
