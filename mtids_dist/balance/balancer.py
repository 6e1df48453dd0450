"""The balanced backward: K losses in, balanced gradients where the optimizer finds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.collectives import from_rank_zero
from mtids_dist.balance.gramian import ExactGramian, Gramian
from mtids_dist.balance.graph import leaves_of
from mtids_dist.balance.handover import DeepSpeedHandOver, HandOver, PlainHandOver
from mtids_dist.errors import WorkFailedError


class NonFiniteGradientError(WorkFailedError):
    """A task's gradient has nan or inf in it: no weights can be agreed on, and nothing was handed over."""


@dataclass(frozen=True, kw_only=True)
class BalanceInfo:
    """What was decided in a step: task names, their weights [K] and the Gramian [K, K], both float64 on the CPU."""

    tasks: tuple[str, ...]
    weights: Tensor
    gramian: Tensor

    @property
    def norms(self) -> Tensor:
        """Norms [K] of the task gradients on the shared parameters."""
        return self.gramian.diagonal().clamp(min=0).sqrt()

    @property
    def cosines(self) -> Tensor:
        """Cosines [K, K] between the task gradients; 0 beside a task without gradient."""
        outer = torch.outer(self.norms, self.norms)
        return torch.where(outer > 0, self.gramian / outer, 0.0).clamp(-1, 1)


class GradientBalancer:
    """Weights the tasks' gradients on the shared parameters, the same way on every rank.

        balancer = GradientBalancer(model.shared_parameters(), DDGBWeighting(), engine=engine)
        info = balancer.backward({"region": loss_1, "metastasis": loss_2})
        engine.step()

    :param shared: the parameters whose gradients are balanced. Every other parameter that a loss reaches is private and takes
        its own loss's gradient, unscaled.
    :param weighting: Gramian [K, K] -> weights [K], TorchJD's or ours (`make_weighting`).
    :param engine: a DeepSpeed engine in any ZeRO stage, losses computed from `engine.module(...)`. None: plain torch, with or
        without a process group; the balanced mean gradients are left in `.grad`.
    :param gramian: how the ranks agree on the Gramian.
    :param every: balance every so many steps. Only 1 is available with `ExactGramian`.
    :raises ValueError: no shared parameters, or an `every` that the Gramian can't do.

    The objective is the mean over ranks of the losses passed in: with labels missing unevenly over the ranks, pass a task's local
    sum of losses times ranks / (its labels in the global batch), and on a rank without any a zero that hangs on the graph.
    """

    def __init__(
        self,
        shared: Iterable[nn.Parameter],
        weighting: Weighting[PSDMatrix],
        *,
        engine: Any = None,
        gramian: Gramian | None = None,
        every: int = 1,
    ) -> None:
        self._shared = [p for p in shared if p.requires_grad]
        if not self._shared:
            raise ValueError("`shared` must hold at least one trainable parameter, found none")
        if every != 1:
            raise ValueError(f"`every` must be 1 with {type(gramian or ExactGramian()).__name__}, found {every!r}")
        self._weighting = weighting
        self._gramian = gramian or ExactGramian()
        self._hand_over: HandOver = PlainHandOver() if engine is None else DeepSpeedHandOver(engine)
        self._tasks: tuple[str, ...] = ()

    def backward(self, losses: Mapping[str, Tensor], features: Sequence[Tensor] = ()) -> BalanceInfo:
        """Everything of a step but the step itself, which the caller takes on engine or optimizer.

        :param losses: {task: scalar}, the same tasks in the same order on every rank and in every step.
        :param features: the border tensors between shared and private parts; only Gramians that say `needs_features` use them.
        :raises ValueError: other tasks than in the steps before, or a loss that is not a scalar.
        :raises NonFiniteGradientError: nan or inf in a task's gradient on any rank; raised on every rank, nothing handed over.
        """
        self._check(losses)
        values = list(losses.values())
        with self._hand_over.whole():
            found = self._gramian.collect(values, self._shared, self._private(values), features)
            self._refuse_non_finite(found.gramian)
            weights = self._weights(found.gramian)
            shared = zip(self._shared, found.combine(weights), strict=True)
            self._hand_over.give(torch.stack([v.detach() for v in values]).mean(), [*shared, *found.private])
        return BalanceInfo(tasks=self._tasks, weights=weights, gramian=found.gramian)

    def state_dict(self) -> dict[str, Any]:
        """Task names and the weighting's state; loadable with `weights_only=True`."""
        return {"tasks": list(self._tasks), "weighting": self._weighting.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back.

        :raises ValueError: the state belongs to other tasks.
        """
        saved = tuple(state["tasks"])
        if self._tasks and saved != self._tasks:
            raise ValueError(f"the state must be of tasks {self._tasks}, found {saved}")
        self._tasks = saved
        self._weighting.load_state_dict(state["weighting"])

    def _check(self, losses: Mapping[str, Tensor]) -> None:
        tasks = tuple(losses)
        if not self._tasks:
            self._tasks = tasks
        if tasks != self._tasks or not tasks:
            raise ValueError(f"`losses` must have the same tasks in every step: {self._tasks}, found {tasks}")
        for task, loss in losses.items():
            if loss.ndim:
                raise ValueError(f"the loss of {task!r} must be a scalar, found shape {tuple(loss.shape)}")

    def _private(self, losses: Sequence[Tensor]) -> list[nn.Parameter]:
        shared = set(self._shared)
        known = self._hand_over.parameters()
        return [p for p in (leaves_of(losses) if known is None else known) if p not in shared]

    def _weights(self, gramian: Tensor) -> Tensor:
        weights = self._weighting(gramian)
        if getattr(self._weighting, "draws_random", False):
            weights = from_rank_zero(weights, self._shared[0].device)
        return weights

    def _refuse_non_finite(self, gramian: Tensor) -> None:
        broken = [task for task, finite in zip(self._tasks, gramian.diagonal().isfinite().tolist(), strict=True) if not finite]
        if broken:
            raise NonFiniteGradientError(f"the gradient of {', '.join(broken)} is not finite (nan or inf) on at least one rank")
