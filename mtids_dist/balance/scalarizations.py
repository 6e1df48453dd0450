"""Methods that weight losses instead of gradients, by name: TorchJD's scalarizations, "losses in, one number out"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torchjd.scalarization import (
    COSMOS,
    DWA,
    FAMO,
    IMTLL,
    PBI,
    STCH,
    UW,
    Constant,
    GeometricMean,
    Mean,
    Random,
    Scalarizer,
    Sum,
)

from mtids_dist.balance.by_name import make_by_name

SCALARIZATIONS: Mapping[str, Callable[..., Scalarizer]] = MappingProxyType(
    {
        "equal": Mean,
        "sum": Sum,
        "constant": Constant,
        "cosmos": COSMOS,
        "dwa": DWA,
        "famo": FAMO,
        "gls": GeometricMean,
        "imtl_l": IMTLL,
        "pbi": PBI,
        "rlw": Random,
        "stch": STCH,
        "uw": UW,
    }
)
"""Every scalarization that `make_scalarization` knows."""

DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"cosmos": {"lambda_": 1.0}, "pbi": {"theta": 5.0}, "stch": {"mu": 0.1}}
)
"""What TorchJD requires: PBI's theta of its paper (Zhang & Li, 2007); for STCH's mu (Lin et al., ICML 2024) and COSMOS's lambda
(Ruchte & Grabocka, 2021) the papers name a range."""

_HAS_SHAPE = ("famo", "imtl_l", "uw")
_NEEDS_WEIGHTS = ("constant", "cosmos", "pbi")
_VECTORS = ("weights", "reference", "min_losses")


def make_scalarization(name: str, num_tasks: int, **options: Any) -> Scalarizer:
    """The scalarization of that name; `options` are its constructor's, vectors as lists (`make_scalarization("stch", 3, mu=1)`).

    Preference `weights` are equal ones, summing to 1, where a method needs them and none are given.

    :raises ValueError: an unknown name, an option that the method does not have, or a vector of another length than `num_tasks`.
    """
    if name in _NEEDS_WEIGHTS:
        options = {"weights": [1.0 / num_tasks] * num_tasks, **options}
    vectors = {key: _vector(key, options[key], num_tasks) for key in _VECTORS if options.get(key) is not None}
    shape = {"shape": num_tasks} if name in _HAS_SHAPE else {}
    return make_by_name(SCALARIZATIONS, DEFAULTS, name, {**options, **vectors, **shape})


def learned_parameters(scalarization: Scalarizer) -> list[nn.Parameter]:
    """What belongs in the optimizer; FAMO's weights have one of their own."""
    return [] if isinstance(scalarization, FAMO) else list(scalarization.parameters())


def _vector(name: str, values: Sequence[float], num_tasks: int) -> torch.Tensor:
    if len(values) != num_tasks:
        raise ValueError(f"`{name}` must have a number a task, {num_tasks}, found {len(values)}")
    return torch.tensor(values, dtype=torch.float32)
