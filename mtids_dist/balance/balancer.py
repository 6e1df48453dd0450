"""The balanced backward: K losses in, balanced gradients where the optimizer finds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.collectives import from_each_rank, from_rank_zero, rank_sum, world_size
from mtids_dist.balance.gramians import ExactGramian, Gramian
from mtids_dist.balance.graph import leaves_of
from mtids_dist.balance.handover import HandOver, make_hand_over
from mtids_dist.balance.info import BalanceInfo
from mtids_dist.balance.losses import check_losses, stacked
from mtids_dist.balance.non_finite import NonFiniteGradientError, OnNonFinite, check_on_non_finite, describe
from mtids_dist.balance.normalise import Normalise, check_normalise, normalised
from mtids_dist.balance.rows import all_finite, numel
from mtids_dist.balance.weightings import SeesLosses
from mtids_dist.balance.windows import BorderWindow, ParameterWindow, Window


class GradientBalancer:
    """Weights the tasks' gradients on the shared parameters, the same way on every rank.

        balancer = GradientBalancer(model.shared_parameters(), DDGBWeighting(), engine=engine)
        info = balancer.backward({"region": loss_1, "metastasis": loss_2})
        engine.step()

    :param shared: the parameters whose gradients are balanced. Every other parameter that a loss reaches is private and takes
        its own loss's gradient, unscaled.
    :param weighting: Gramian [K, K] -> weights [K], TorchJD's or ours (`make_weighting`).
    :param engine: a DeepSpeed engine in any ZeRO stage, losses (and features) computed by `engine.module.forward(...)`. None:
        plain torch, with or without a process group; the balanced mean gradients are left in `.grad`.
    :param gramian: how the ranks agree on the Gramian.
    :param every: find weights every so many steps. In between the last ones are applied at the border, at the cost of a plain
        backward: `features` must then be given.
    :param accumulation_steps: micro-batches a step, without an engine; an engine says it itself.
    :param parameters: without an engine, which knows them: all of the model's, in the same order on every rank. None: those that
        the losses reach, in the order of the graph, which must then be the same on every rank.
    :param normalise: bring the update to the length of the plain mean (`length`), or weights to a sum of 1 (`weights`), so that
        methods that sum and methods that average mean the same by a learning rate.
    :param on_non_finite: stop with an error, or skip the step, where a gradient has nan or inf.
    :raises ValueError: no shared parameters, or some that are not among all, a number below 1, or an engine with settings that
        can't work (`check_engine`).

    The objective is the mean over ranks and micro-batches of the losses passed in: with labels missing unevenly, pass a task's
    local sum of losses times (ranks x micro-batches) / (its labels in all of them), and on a rank without any a zero that hangs
    on the graph.

    In an accumulation window the K gradients are kept until it ends, and the Gramian is that of the accumulated gradients. Only
    at the border that can't be: there a window is weighted as the one before it said (the first one equally).
    """

    def __init__(
        self,
        shared: Iterable[nn.Parameter],
        weighting: Weighting[PSDMatrix],
        *,
        engine: Any = None,
        gramian: Gramian | None = None,
        every: int = 1,
        accumulation_steps: int = 1,
        parameters: Iterable[nn.Parameter] | None = None,
        normalise: Normalise = "none",
        on_non_finite: OnNonFinite = "stop",
    ) -> None:
        self._shared = list(dict.fromkeys(p for p in shared if p.requires_grad))
        if not self._shared:
            raise ValueError("`shared` must hold at least one trainable parameter, found none")
        if every < 1:
            raise ValueError(f"`every` must be at least 1, found {every!r}")
        check_normalise(normalise)
        check_on_non_finite(on_non_finite)
        self._weighting, self._every = weighting, every
        self._normalise, self._skips = normalise, on_non_finite == "skip"
        self._gramian: Gramian = gramian or ExactGramian()
        self._hand_over: HandOver = make_hand_over(engine, accumulation_steps, parameters)
        known = self._hand_over.parameters()
        if known is not None and not set(self._shared) <= set(known):
            raise ValueError("every parameter in `shared` must be one of `parameters` (or of the engine's module), found others")
        self._tasks: tuple[str, ...] = ()
        self._window: Window | None = None
        self._losses = torch.zeros(())  # [K], summed over this step's micro-batches
        self._taken, self._steps = 0, 0  # micro-batches of this step, and steps
        self._last: tuple[Tensor, Tensor] | None = None  # weights and Gramian

    def backward(self, losses: Mapping[str, Tensor], features: Sequence[Tensor] = ()) -> BalanceInfo:
        """Everything of a step (or of a micro-batch of it) but the step itself, which the caller takes on engine or optimizer.

        :param losses: {task: scalar}, the same tasks in the same order on every rank and in every step.
        :param features: the border tensors between shared and private parts, none of which depends on another; needed by Gramians
            that are `at_border`, and with `every` above 1.
        :raises ValueError: other tasks than in the steps before, a loss that is not a scalar, or features missing.
        :raises NonFiniteGradientError: nan or inf in a task's gradient on any rank; raised on every rank with the tasks and the
            ranks named, nothing handed over.
        """
        self._tasks = check_losses(losses, self._tasks)
        try:
            with self._hand_over.whole():
                return self._take(list(losses.values()), features)
        except BaseException:
            self._window = None  # what it has of a micro-batch that failed is not to be added to
            raise

    needs_losses_after_step = False

    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        """Nothing to learn from the losses after a step: `LossBalancer` has methods that do."""

    def end_epoch(self) -> None:
        """No method here counts by epochs."""

    def bytes_sent(self, num_tasks: int) -> int:
        """Bytes that a rank sends in a step that finds weights, besides the data-parallel reduction."""
        return self._gramian.bytes_sent(num_tasks, self._num_parameters)

    def bytes_kept(self, num_tasks: int) -> int:
        """Bytes of gradients that a rank keeps in such a step at most, besides those of a plain step."""
        return self._gramian.bytes_kept(num_tasks, self._num_parameters)

    def state_dict(self) -> dict[str, Any]:
        """Task names, the weighting's state, and the weights that serve in between; loadable with `weights_only=True`.

        Taken between steps: an accumulation window that is open is not in it.
        """
        return {
            "tasks": list(self._tasks),
            "weighting": self._weighting.state_dict(),
            "steps": self._steps,
            "last": None if self._last is None else list(self._last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts a saved state back.

        :raises ValueError: the state belongs to other tasks.
        """
        saved = tuple(state["tasks"])
        if self._tasks and saved != self._tasks:
            raise ValueError(f"the state must be of tasks {self._tasks}, found {saved}")
        self._tasks = saved
        self._weighting.load_state_dict(state["weighting"])
        self._steps = state["steps"]
        self._last = None if state["last"] is None else (state["last"][0], state["last"][1])
        self._window = None

    @property
    def _num_parameters(self) -> int:
        return sum(map(numel, self._shared))

    def _take(self, losses: Sequence[Tensor], features: Sequence[Tensor]) -> BalanceInfo:
        window = self._window = self._window or self._open()
        self._check_features(window, features)
        ends = self._hand_over.ends_window(self._taken)
        window.take(losses, features, self._private(losses), ends=ends)
        if isinstance(self._weighting, SeesLosses):
            self._losses = self._losses + stacked(losses)
        self._taken += 1
        return self._end(window, losses) if ends else self._info(self._known_weights(), balanced=False, complete=False)

    def _check_features(self, window: Window, features: Sequence[Tensor]) -> None:
        if isinstance(window, BorderWindow) and not any(feature.requires_grad for feature in features):
            why = repr(self._gramian) if self._gramian.at_border else f"every={self._every}"
            found = "none that requires a gradient" if len(features) else "none"
            raise ValueError(f"`features` must hold the border tensors with {why}, found {found}")

    def _open(self) -> Window:
        """What this step's gradients go through."""
        self._taken, self._losses = 0, torch.zeros((), device=self._device)
        finds = self._steps % self._every == 0
        if finds and not self._gramian.at_border:
            return ParameterWindow(self._gramian.agree(self._steps), self._shared)
        at_once = finds and self._hand_over.micro_batches == 1
        agree = partial(self._gramian.agree, self._steps) if finds else None
        return BorderWindow(agree, self._shared, None if at_once else self._known_weights())

    def _private(self, losses: Sequence[Tensor]) -> list[nn.Parameter]:
        shared = set(self._shared)
        known = self._hand_over.parameters()
        return [p for p in (leaves_of(losses) if known is None else known) if p not in shared]

    def _end(self, window: Window, losses: Sequence[Tensor]) -> BalanceInfo:
        self._window = None
        private = list(window.private.items())
        gramian, intact = self._agreed(window, [gradient for _, gradient in private])
        if not intact:
            return self._refuse(window)
        before, weights = self._last, self._weights_for(window, gramian)
        broken = [task for task, weight in zip(self._tasks, weights.tolist(), strict=True) if not math.isfinite(weight)]
        if broken:  # by what the weighting sees besides the Gramian: losses
            self._last = before
            return self._refuse(window, f"the weight of {', '.join(broken)} by {self._weighting!r}, which sees losses,")
        shared = [(p, g) for p, g in zip(self._shared, window.shared(weights), strict=True) if g is not None]
        gradients = [*shared, *private]
        # Sums of rows that are intact are; what comes through the border has not been seen yet, nor anything without a Gramian.
        unseen = gradients if gramian is None else shared
        if isinstance(window, BorderWindow) and not self._all_intact([gradient for _, gradient in unseen]):
            return self._refuse(window)
        self._hand_over.give(stacked(losses).mean(), gradients)
        self._steps += 1
        return self._info(weights, balanced=gramian is not None)

    def _agreed(self, window: Window, private: Sequence[Tensor]) -> tuple[Tensor | None, bool]:
        """The Gramian [K, K] on the CPU, and whether no rank has a broken gradient so far; a collective.

        One sum over the ranks and one wait for the device: beside their parts of the Gramian, which nan or inf in a shared
        gradient would have spoilt, ranks send whether a private one has any.
        """
        part = window.part()
        if part is None:
            return None, True
        broken = (~all_finite(private, part.device)).to(part.dtype)
        total = rank_sum(torch.cat([part.reshape(-1), broken[None]]), self._device).cpu()
        return total[:-1].view_as(part), bool(total.isfinite().all() & (total[-1] == 0))

    def _all_intact(self, gradients: Sequence[Tensor]) -> bool:
        """Whether no rank has nan or inf in these; a collective, and a wait for the device."""
        broken = (~all_finite(gradients, self._device)).to(torch.float32)
        return not rank_sum(broken[None], self._device).item()

    def _weights_for(self, window: Window, gramian: Tensor | None) -> Tensor:
        """Finds weights where there is a Gramian; those that this step is weighted with."""
        before = self._known_weights()
        if gramian is None:
            return before
        if isinstance(self._weighting, SeesLosses):
            self._weighting.observe(rank_sum(self._losses, self._device) / (world_size() * self._taken))
        weights = self._weighting(gramian)
        if getattr(self._weighting, "draws_random", False):
            weights = from_rank_zero(weights, self._device)
        weights = normalised(weights, gramian, self._normalise)
        self._last = (weights, gramian)
        return before if window.is_weighted else weights

    def _known_weights(self) -> Tensor:
        """The last that were found; before the first ones all tasks count alike."""
        count = len(self._tasks)
        return torch.full((count,), 1.0 / count, dtype=torch.float64) if self._last is None else self._last[0]

    def _refuse(self, window: Window, what: str | None = None) -> BalanceInfo:
        """`what` is not finite, the same on every rank; None: gradients, which are then looked for."""
        if what is None:
            finite = from_each_rank(window.finite().to(torch.uint8), self._device)  # [R, K]
            what = f"the gradient of {describe((finite == 0).nonzero().tolist(), self._tasks)}"
        if not self._skips:
            raise NonFiniteGradientError(f"{what} is not finite (nan or inf)")
        self._hand_over.skip()
        return self._info(self._known_weights(), balanced=False, skipped=True)

    def _info(self, weights: Tensor, **more: bool) -> BalanceInfo:
        count = len(self._tasks)
        gramian = torch.full((count, count), math.nan, dtype=torch.float64) if self._last is None else self._last[1]
        return BalanceInfo(tasks=self._tasks, weights=weights, gramian=gramian, **more)

    @property
    def _device(self) -> torch.device:
        return self._shared[0].device
