"""The losses of a step as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_losses(losses: Mapping[str, Tensor], before: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks' names.

    :param before: those of earlier steps; empty in the first.
    :raises ValueError: none, other ones than before, or a loss that is not a scalar.
    """
    tasks = tuple(losses)
    if not tasks or (before and tasks != before):
        raise ValueError(f"`losses` must have the same tasks in every step: {before or 'at least one'}, found {tasks}")
    for task, loss in losses.items():
        if loss.ndim:
            raise ValueError(f"the loss of {task!r} must be a scalar, found shape {tuple(loss.shape)}")
    return tasks


def stacked(losses: Sequence[Tensor]) -> Tensor:
    """[K], detached."""
    return torch.stack([loss.detach() for loss in losses])
