"""Weights of different methods made comparable: some sum the tasks' gradients, some take their mean."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

Normalise = Literal["none", "weights", "length"]


def check_normalise(how: str) -> None:
    """:raises ValueError: another value than none, weights or length."""
    if how not in get_args(Normalise):
        raise ValueError(f"`normalise` must be one of {', '.join(get_args(Normalise))}, found {how!r}")


def normalised(weights: Tensor, gramian: Tensor, how: Normalise) -> Tensor:
    """The same direction at another length.

    :param how: `weights`: they sum to 1, as those of the mean do; `length`: the update is as long as the mean of the gradients,
        so that the learning rate means what it means in plain training. Weights that sum to 0 or less, and an update of
        length 0, stay as they are.
    """
    if how == "weights":
        total = weights.sum()
        return weights / total if total > 0 else weights
    if how == "length":
        mine, plain = (weights @ gramian @ weights).clamp(min=0).sqrt(), gramian.mean().clamp(min=0).sqrt()
        return weights * plain / mine if mine > 0 else weights
    return weights
