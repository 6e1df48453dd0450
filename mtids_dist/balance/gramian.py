"""Where the Gramian of the task gradients comes from, and what it costs in bytes sent and kept.

Legend: K tasks, N shared parameters, R ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mtids_dist.balance.collectives import start_sum, world_size

CHUNK = 1 << 20
"""Columns of J that are taken to float64 at a time."""


@dataclass(frozen=True, kw_only=True)
class TaskGradients:
    """What a Gramian found out in a step.

    :param gramian: [K, K] float64 on the CPU: inner products of the task gradients on the shared parameters, averaged over ranks.
    :param combine: weights [K] -> this rank's own sum_k w_k g_k, one tensor per shared parameter.
    :param private: (parameter, this rank's gradient) for every private parameter, each of its own loss only, unscaled.
    """

    gramian: Tensor
    combine: Callable[[Tensor], list[Tensor]]
    private: list[tuple[nn.Parameter, Tensor]]


class Gramian(Protocol):
    """Differentiates K losses and agrees on their Gramian over all ranks."""

    needs_features: bool
    """Whether `features`, the border tensors between shared and private parts, must be given."""

    def collect(
        self,
        losses: Sequence[Tensor],
        shared: Sequence[nn.Parameter],
        private: Sequence[nn.Parameter],
        features: Sequence[Tensor],
    ) -> TaskGradients:
        """Task gradients and Gramian of `losses`, each a scalar on this rank."""
        ...

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:
        """Bytes that a rank hands to its collectives in a step, besides the data-parallel reduction itself."""
        ...

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """Bytes of gradients that a rank keeps in a step, besides the model's own."""
        ...


class ExactGramian:
    """The Gramian of the mean gradients themselves: exact at any number of ranks.

    Each task's gradient is summed over the ranks while the next task's backward runs. K backward passes through the shared part;
    sends K N floats a step and keeps 2 K N floats (K N on one rank).
    """

    needs_features = False

    def collect(
        self,
        losses: Sequence[Tensor],
        shared: Sequence[nn.Parameter],
        private: Sequence[nn.Parameter],
        features: Sequence[Tensor],  # noqa: ARG002  # exact gradients need no border
    ) -> TaskGradients:
        """See `Gramian.collect`."""
        rows: list[Tensor] = []
        pending: list[_MeanRow] = []
        own: list[tuple[nn.Parameter, Tensor]] = []
        for k, loss in enumerate(losses):
            gradients = torch.autograd.grad(loss, [*shared, *private], retain_graph=k < len(losses) - 1, allow_unused=True)
            row = _flatten(gradients[: len(shared)], shared)
            rows.append(row)
            pending.append(_MeanRow(row))
            own += [(p, g) for p, g in zip(private, gradients[len(shared) :], strict=True) if g is not None]
        gramian = _gramian([row.wait() for row in pending])
        return TaskGradients(gramian=gramian, combine=lambda weights: _combine(weights, rows, shared), private=_merge(own))

    def bytes_sent(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_sent`."""
        return 4 * num_tasks * num_parameters if world_size() > 1 else 0

    def bytes_kept(self, num_tasks: int, num_parameters: int) -> int:
        """See `Gramian.bytes_kept`."""
        return 4 * num_tasks * num_parameters * (2 if world_size() > 1 else 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _MeanRow:
    """A task's gradient on its way to the mean over ranks; the rank's own row stays as it is."""

    def __init__(self, row: Tensor) -> None:
        self._row = row.clone() if world_size() > 1 else row
        self._work = start_sum(self._row)

    def wait(self) -> Tensor:
        if self._work is not None:
            self._work.wait()
            self._row /= world_size()
        return self._row


def numel(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter, also where ZeRO-3 leaves this rank a part or nothing of it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _shape(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def _flatten(gradients: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> Tensor:
    """One float32 (or wider) row [N]; zeros where a loss does not reach a parameter."""
    pieces = [p.new_zeros(numel(p)) if g is None else g.reshape(-1) for p, g in zip(parameters, gradients, strict=True)]
    row = torch.cat(pieces)
    return row if row.dtype == torch.float64 else row.float()


def _chunks(rows: Sequence[Tensor]) -> Iterator[Tensor]:
    for start in range(0, len(rows[0]), CHUNK):
        yield torch.stack([row[start : start + CHUNK] for row in rows]).double()


def _gramian(rows: Sequence[Tensor]) -> Tensor:
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device)
    for J in _chunks(rows):
        total += J @ J.T
    return total.cpu()


def _combine(weights: Tensor, rows: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    combined = torch.zeros_like(rows[0])
    for weight, row in zip(weights.tolist(), rows, strict=True):
        combined.add_(row, alpha=weight)
    pieces = combined.split_with_sizes([numel(p) for p in parameters])
    return [piece.view(_shape(p)) for piece, p in zip(pieces, parameters, strict=True)]


def _merge(gradients: Sequence[tuple[nn.Parameter, Tensor]]) -> list[tuple[nn.Parameter, Tensor]]:
    """One gradient a parameter: the sum, where several losses reach the same one."""
    merged: dict[nn.Parameter, Tensor] = {}
    for parameter, gradient in gradients:
        merged[parameter] = merged[parameter] + gradient if parameter in merged else gradient
    return list(merged.items())
