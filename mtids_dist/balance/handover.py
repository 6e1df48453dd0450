"""Hands prepared gradients to whoever takes the step: DeepSpeed in any ZeRO stage, or a plain optimizer.

What crosses here is each rank's own gradient; the receiver's mean over ranks makes it the global one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mtids_dist.balance.collectives import start_sum, world_size
from mtids_dist.balance.deepspeed_limits import check_engine
from mtids_dist.balance.rows import scaled, unshared

_IN_USE = -1
"""Stands among the ids of submodules that work with a parameter; no module has it."""

Gradients = Sequence[tuple[nn.Parameter, Tensor]]


class HandOver(Protocol):
    """Where the gradients of a step end."""

    def parameters(self) -> list[nn.Parameter] | None:
        """Every trainable parameter that it takes care of; None when only the graph can tell."""
        ...

    def whole(self) -> AbstractContextManager[None]:
        """Inside, parameters can be differentiated more than once and given their gradients; a collective."""
        ...

    @property
    def micro_batches(self) -> int:
        """Micro-batches a step."""
        ...

    def ends_window(self, taken: int) -> bool:
        """Whether the next micro-batch, after `taken` ones of this step, is the step's last."""
        ...

    def give(self, loss: Tensor, gradients: Gradients) -> None:
        """Takes this rank's gradients, summed over the step's micro-batches, inside `whole`; `loss` is the scalar that they are
        said to come from."""
        ...

    def skip(self) -> None:
        """Nothing is given in this step, and the caller will not take it."""
        ...


def make_hand_over(engine: Any, micro_batches: int, parameters: Iterable[nn.Parameter] | None) -> HandOver:
    """To a DeepSpeed engine, which says its micro-batches and parameters itself, or (None) to a plain optimizer.

    :raises ValueError: no micro-batches, or an engine with settings that can't work.
    """
    return PlainHandOver(micro_batches, parameters) if engine is None else DeepSpeedHandOver(engine)


class PlainHandOver:
    """Leaves the mean over ranks and micro-batches in `.grad`, added to what is there, as `backward` would.

    :param parameters: all that may be given a gradient, in the same order on every rank. None: those that are, in their order.
    :raises ValueError: no micro-batches.
    """

    def __init__(self, micro_batches: int = 1, parameters: Iterable[nn.Parameter] | None = None) -> None:
        if micro_batches < 1:
            raise ValueError(f"`accumulation_steps` must be at least 1, found {micro_batches!r}")
        self.micro_batches = micro_batches
        self._parameters = None if parameters is None else list(dict.fromkeys(p for p in parameters if p.requires_grad))

    def ends_window(self, taken: int) -> bool:
        """See `HandOver.ends_window`."""
        return taken + 1 >= self.micro_batches

    def parameters(self) -> list[nn.Parameter] | None:
        """None where only the graph can tell."""
        return self._parameters

    def whole(self) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()

    def give(self, loss: Tensor, gradients: Gradients) -> None:  # noqa: ARG002  # plain torch has no loss scale to honour
        """See `HandOver.give`."""
        gradients = self._aligned(gradients)
        for (parameter, _), mean in zip(gradients, self._means([gradient for _, gradient in gradients]), strict=True):
            mine = mean.to(parameter.dtype)
            parameter.grad = mine if parameter.grad is None else parameter.grad + mine

    def _aligned(self, gradients: Gradients) -> Gradients:
        """The same parameters in the same order on every rank: zeros for one that this rank's losses don't reach."""
        if self._parameters is None or world_size() == 1:
            return gradients
        mine = dict(gradients)
        return [(p, mine[p] if p in mine else torch.zeros_like(p)) for p in self._parameters]

    def _means(self, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        if world_size() == 1:
            return unshared(gradients) if self.micro_batches == 1 else [gradient / self.micro_batches for gradient in gradients]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        work = start_sum(flat)
        if work is not None:
            work.wait()
        flat /= world_size() * self.micro_batches
        pieces = flat.split_with_sizes([gradient.numel() for gradient in gradients])
        return [piece.view(gradient.shape) for piece, gradient in zip(pieces, gradients, strict=True)]

    def skip(self) -> None:
        """See `HandOver.skip`."""


class DeepSpeedHandOver:
    """One `engine.backward` on a function whose gradients are the prepared ones.

    DeepSpeed's reduction, loss scale and accumulation factor act on them as on any others. Its own forward is not used: the hooks
    that it hangs on outputs refuse `torch.autograd.grad`.

    :raises ValueError: an engine with settings that can't work.
    """

    def __init__(self, engine: Any) -> None:
        check_engine(engine)
        self._engine = engine

    @property
    def micro_batches(self) -> int:
        """See `HandOver.micro_batches`."""
        return int(self._engine.gradient_accumulation_steps())

    def ends_window(self, taken: int) -> bool:  # noqa: ARG002  # the engine counts
        """See `HandOver.ends_window`."""
        return bool(self._engine.is_gradient_accumulation_boundary())

    def skip(self) -> None:
        """The engine counts its calls of `step`, of which the caller leaves one out."""
        self._engine.micro_steps += 1

    def parameters(self) -> list[Any]:
        """The engine's trainable parameters."""
        return [p for p in self._engine.module.parameters() if p.requires_grad]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Under ZeRO-3 parameters are stubs outside their module's forward and first backward: here they are gathered and held.

        DeepSpeed's hooks fetch a module's parameters for one backward a forward and release them after it; K backwards need them
        K times. A parameter that some submodule still works with is not released, so each is marked as in use meanwhile.
        """
        import deepspeed

        if self._engine.zero_optimization_stage() < 3:
            yield
            return
        parameters = self.parameters()
        with deepspeed.zero.GatheredParameters(parameters):
            for parameter in parameters:
                parameter.ds_active_sub_modules.add(_IN_USE)
            try:
                yield
            finally:
                for parameter in parameters:
                    parameter.ds_active_sub_modules.discard(_IN_USE)
                # Where nothing was given, DeepSpeed's own backward was not there to release what its hooks fetched.
                self._engine.optimizer.parameter_offload.release_backward_leftovers()

    def give(self, loss: Tensor, gradients: Gradients) -> None:
        """See `HandOver.give`."""
        prepared: Tensor = _Prepared.apply(loss, [g for _, g in gradients], *(p for p, _ in gradients))  # type: ignore[no-untyped-call]
        self._engine.backward(prepared)


class _Prepared(torch.autograd.Function):
    """A scalar whose gradients are given; grad_output carries loss scale and accumulation factor."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *parameters: nn.Parameter) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [parameter.dtype for parameter in parameters]
        return loss.detach().clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (scale,) = grad_outputs
        return (None, None, *scaled(ctx.gradients, scale, ctx.dtypes))
