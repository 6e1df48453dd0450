"""The backward of a weighted loss: K losses in, the gradients of their scalarization where the optimizer finds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchjd.scalarization import DWA, FAMO, Random, Scalarizer

from mtids_dist.balance.collectives import from_each_rank, from_rank_zero, rank_sum, world_size
from mtids_dist.balance.graph import leaves_of
from mtids_dist.balance.handover import HandOver, make_hand_over
from mtids_dist.balance.info import BalanceInfo
from mtids_dist.balance.losses import check_losses, stacked
from mtids_dist.balance.non_finite import NonFiniteGradientError, OnNonFinite, check_on_non_finite, describe
from mtids_dist.balance.rows import all_finite, merged
from mtids_dist.balance.scalarizations import learned_parameters

_DWA_STATE = ("_loss_sum", "_n_batches", "_previous_averages")


class LossBalancer:
    """Weights the tasks' losses, the same way on every rank, at the cost of a plain backward.

        scalarization = make_scalarization("uw", 3)
        optimizer = torch.optim.Adam([*model.parameters(), *learned_parameters(scalarization)])
        balancer = LossBalancer(scalarization)
        info = balancer.backward({"station": loss_1, "metastasis": loss_2, "joint": loss_3})
        optimizer.step()

    The scalarization sees the mean losses over ranks, so its derivatives :math:`c_k` by them, and the gradients of what it learns
    itself, are the same on every rank; each rank hands over the gradient of :math:`sum_k c_k L_k` of its own losses, whose mean
    over ranks is the exact one. `c` weights the private parts, too, as these methods mean it.

    A task without a label in a step (a loss that is 0 on all ranks) is shown with its last known loss, so that it moves the
    others' weights by nothing, and teaches the scalarization nothing. In an accumulation window every micro-batch is scalarized
    by itself: exact for all methods but FAMO, STCH, GLS, PBI and COSMOS, whose weights depend on the losses.

    :param scalarization: TorchJD's (`make_scalarization`). What it learns (`learned_parameters`) belongs in the optimizer; with
        an engine it must be part of the module that DeepSpeed was given.
    :param engine: see `GradientBalancer`.
    :param accumulation_steps: micro-batches a step, without an engine.
    :param parameters: see `GradientBalancer`.
    :param normalise: `weights`, to make the weights sum to 1 (UW's sum up to K / 2 at first, IMTL-L's to K), or `none`.
    :param on_non_finite: stop with an error, or skip the step, where a loss or a gradient has nan or inf.
    :raises ValueError: a value that is not allowed, learned parameters that the engine doesn't know, or an engine with settings
        that can't work.
    """

    def __init__(
        self,
        scalarization: Scalarizer,
        *,
        engine: Any = None,
        accumulation_steps: int = 1,
        parameters: Iterable[nn.Parameter] | None = None,
        normalise: str = "none",
        on_non_finite: OnNonFinite = "stop",
    ) -> None:
        if normalise not in ("none", "weights"):
            raise ValueError(f"`normalise` must be none or weights where losses are weighted, found {normalise!r}")
        check_on_non_finite(on_non_finite)
        self._scalarization, self._learned = scalarization, learned_parameters(scalarization)
        self._normalise, self._skips = normalise, on_non_finite == "skip"
        self._hand_over: HandOver = make_hand_over(
            engine, accumulation_steps, None if parameters is None else [*parameters, *self._learned]
        )
        known = self._hand_over.parameters()
        if known is not None and not set(self._learned) <= set(known):
            raise ValueError(f"what {scalarization!r} learns must be part of the module that DeepSpeed was given")
        self._tasks: tuple[str, ...] = ()
        self._known: Tensor | None = None  # the last losses [K], nan for a task that had none yet
        self._gradients: dict[nn.Parameter, Tensor] = {}
        self._finite: Tensor | None = None  # [K] whether this rank's losses were, in every micro-batch
        self._last: Tensor | None = None  # weights [K] of the last step, on the CPU
        self._before: tuple[Tensor | None, dict[str, Any]] = (None, {})  # known losses and state before this step
        self._taken = 0

    @property
    def needs_losses_after_step(self) -> bool:
        """Whether `after_step` is to be called."""
        return isinstance(self._scalarization, FAMO)

    def backward(self, losses: Mapping[str, Tensor], features: Sequence[Tensor] = ()) -> BalanceInfo:  # noqa: ARG002  # as its peer
        """See `GradientBalancer.backward`; the Gramian of what comes back is nan, since none is made.

        :raises ValueError: other tasks than in the steps before, or a loss that is not a scalar.
        :raises NonFiniteGradientError: on every rank, nothing handed over.
        """
        self._tasks = check_losses(losses, self._tasks)
        values = list(losses.values())
        ends = self._hand_over.ends_window(self._taken)
        try:
            with self._hand_over.whole():
                weights = self._take(values)
                self._taken += 1
                return self._end(weights, values) if ends else self._info(balanced=False, complete=False)
        except BaseException:
            self._open()  # what there is of a micro-batch that failed is not to be added to
            raise

    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        """Shows the losses of the same batch after the step, from which FAMO learns its weights; a collective.

        :param losses: of the last micro-batch.
        :raises ValueError: other tasks than in `backward`.
        """
        check_losses(losses, self._tasks)
        if isinstance(self._scalarization, FAMO):
            mean, _ = self._shown(self._mean(stacked(list(losses.values()))))
            self._scalarization.update(mean)

    def end_epoch(self) -> None:
        """Ends an epoch, by which DWA counts."""
        if isinstance(self._scalarization, DWA):
            self._scalarization.step()

    def bytes_sent(self, num_tasks: int) -> int:
        """Bytes that a rank sends in a step, besides the data-parallel reduction."""
        return 8 * (num_tasks + 2) if world_size() > 1 else 0

    def bytes_kept(self, num_tasks: int) -> int:  # noqa: ARG002  # whatever K is
        """None besides the gradient of a plain step."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Task names, their last losses and the scalarization's state but for what it learns (`learned_parameters`).

        That belongs to the model: save it as you save parameters (`scalarization.state_dict()`), an optimizer's state has none.
        """
        return {"tasks": list(self._tasks), "known": self._known, "scalarization": _state_of(self._scalarization)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back.

        :raises ValueError: the state belongs to other tasks.
        """
        saved = tuple(state["tasks"])
        if self._tasks and saved != self._tasks:
            raise ValueError(f"the state must be of tasks {self._tasks}, found {saved}")
        self._tasks, self._known = saved, state["known"]
        _put_state(self._scalarization, state["scalarization"])
        self._open()

    def _open(self) -> None:
        self._gradients, self._finite, self._taken = {}, None, 0

    def _forget(self) -> None:
        """Puts back what the scalarization kept before this step."""
        self._known, state = self._before
        if isinstance(self._scalarization, DWA):
            _put_state(self._scalarization, state)

    def _take(self, losses: Sequence[Tensor]) -> Tensor:
        """Differentiates a micro-batch; its weights [K], on the losses' device."""
        if self._taken == 0:
            self._before = (self._known, _state_of(self._scalarization) if isinstance(self._scalarization, DWA) else {})
        mine = stacked(losses)
        finite = mine.isfinite()
        self._finite = finite if self._finite is None else self._finite & finite
        weights = self._scalarize(self._mean(mine))
        total = (torch.stack(list(losses)) * weights.to(mine)).sum()
        known, learned = self._hand_over.parameters(), set(self._learned)
        parameters = [p for p in (leaves_of(losses) if known is None else known) if p not in learned]
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        reached = {p: g for p, g in zip(parameters, found, strict=True) if g is not None}
        self._gradients = merged(self._gradients, reached)
        return weights

    def _scalarize(self, mean: Tensor) -> Tensor:
        """The derivatives [K] by the losses; those by what is learned join the gradients."""
        shown, active = self._shown(mean)
        shown.requires_grad_()
        with torch.enable_grad():
            total = self._scalarization(shown)
            weights, *learned = torch.autograd.grad(total, [shown, *self._learned])
        own = {p: torch.where(active.to(g.device), g, 0.0) for p, g in zip(self._learned, learned, strict=True)}
        self._gradients = merged(self._gradients, own)
        if isinstance(self._scalarization, Random):
            weights = from_rank_zero(weights, mean.device)
        if self._normalise == "weights":
            weights = torch.where(weights.sum() > 0, weights / weights.sum(), weights)
        return weights.detach()

    def _shown(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The losses [K] that the scalarization sees, in the precision of its vectors, and which tasks have one in this step.

        A task whose loss is broken on some rank has none: the step will be refused.
        """
        active = mean.isfinite() & (mean != 0)
        before = torch.full_like(mean, math.nan) if self._known is None else self._known.to(mean)
        self._known = torch.where(active, mean, before)
        # A task that had no loss yet is an average one; 1 where none had.
        filler = self._known.nanmean().nan_to_num(nan=1.0)
        return torch.where(self._known.isnan(), filler, self._known).float(), active

    def _mean(self, losses: Tensor) -> Tensor:
        mine = losses.double()
        return rank_sum(mine, mine.device) / world_size()

    def _end(self, weights: Tensor, losses: Sequence[Tensor]) -> BalanceInfo:
        gradients, finite = self._gradients, self._finite
        assert finite is not None, "a step has at least one micro-batch"
        self._open()
        # One sum over the ranks and one wait for the device: how many ranks have what is broken, and the weights, equal on all.
        broken = torch.stack([~finite.all(), ~all_finite(list(gradients.values()), finite.device)]).double()
        on_host = torch.cat([rank_sum(broken, broken.device), weights.double()]).cpu()
        if on_host[:2].any():
            self._forget()
            return self._refuse(finite, broken[1])
        self._last = on_host[2:]
        self._hand_over.give(stacked(losses).mean(), list(gradients.items()))
        return self._info()

    def _refuse(self, finite: Tensor, broken: Tensor) -> BalanceInfo:
        """`finite`: [K], of this rank's losses; `broken`: whether its gradient is, which may be all that there is to tell."""
        on_ranks = from_each_rank(torch.cat([(~finite).double(), broken[None]]), finite.device)
        if not self._skips:
            tasks, ranks = on_ranks[:, :-1].nonzero().tolist(), on_ranks[:, -1].nonzero()[:, 0].tolist()
            where = describe(tasks, self._tasks) if tasks else f"the weighted loss on rank {', '.join(map(str, ranks))}"
            raise NonFiniteGradientError(f"the gradient of {where} is not finite (nan or inf)")
        self._hand_over.skip()
        return self._info(balanced=False, skipped=True)

    def _info(self, **more: bool) -> BalanceInfo:
        """Weights are those of the last complete step; nan before the first."""
        count = len(self._tasks)
        nothing = torch.full((count, count), math.nan, dtype=torch.float64)
        weights = nothing[0] if self._last is None else self._last
        return BalanceInfo(tasks=self._tasks, weights=weights, gramian=nothing, **more)


def _state_of(scalarization: Scalarizer) -> dict[str, Any]:
    if isinstance(scalarization, DWA):
        return {name: getattr(scalarization, name) for name in _DWA_STATE}
    if isinstance(scalarization, FAMO):
        optimizer = scalarization._optimizer
        return {"weights": scalarization.state_dict(), "optimizer": None if optimizer is None else optimizer.state_dict()}
    return {}


def _put_state(scalarization: Scalarizer, state: Mapping[str, Any]) -> None:
    if isinstance(scalarization, DWA):
        for name in _DWA_STATE:
            setattr(scalarization, name, state[name])
    if isinstance(scalarization, FAMO):
        scalarization.load_state_dict(state["weights"])
        scalarization._optimizer = None
        if state["optimizer"] is not None:
            parameters, rate, decay = list(scalarization.parameters()), scalarization.lr, scalarization.weight_decay
            scalarization._optimizer = torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
            scalarization._optimizer.load_state_dict(state["optimizer"])
