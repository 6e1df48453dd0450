"""Weightings by name: DD-GB and TorchJD's, each "Gramian in, weights out", fit for tasks that have no gradient in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torchjd.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    ConstantWeighting,
    CRMOGMWeighting,
    DualProjWeighting,
    FairGradWeighting,
    GradVacWeighting,
    IMTLGWeighting,
    KrumWeighting,
    MeanWeighting,
    MGDAWeighting,
    PCDWeighting,
    PCGradWeighting,
    RandomWeighting,
    SumWeighting,
    UPGradWeighting,
    Weighting,
)
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.by_name import make_by_name
from mtids_dist.balance.weightings.active import ActiveTasksWeighting
from mtids_dist.balance.weightings.conflict_free import ConFIGWeighting
from mtids_dist.balance.weightings.ddgb import DDGBWeighting
from mtids_dist.balance.weightings.losses import DBMTLWeighting, GradNormWeighting, SeesLosses
from mtids_dist.balance.weightings.nash import NashMTLWeighting


def _constant(weights: Sequence[float]) -> ConstantWeighting:
    return ConstantWeighting(torch.tensor(weights, dtype=torch.float64))


def _smoothed(of: str = "upgrad", alpha: float = 0.9, **options: Any) -> CRMOGMWeighting[PSDMatrix]:
    weighting = _build(of, options)
    if isinstance(weighting, SeesLosses):
        raise ValueError(f"`cr_mogm` can't smooth {of!r}, which needs the losses")
    return CRMOGMWeighting(weighting, alpha=alpha)


WEIGHTINGS: Mapping[str, Callable[..., Weighting[PSDMatrix]]] = MappingProxyType(
    {
        "ddgb": DDGBWeighting,
        "equal": MeanWeighting,
        "sum": SumWeighting,
        "aligned_mtl": AlignedMTLWeighting,
        "cagrad": CAGradWeighting,
        "config": ConFIGWeighting,
        "constant": _constant,
        "cr_mogm": _smoothed,
        "db_mtl": DBMTLWeighting,
        "dualproj": DualProjWeighting,
        "fairgrad": FairGradWeighting,
        "gradnorm": GradNormWeighting,
        "gradvac": GradVacWeighting,
        "imtl_g": IMTLGWeighting,
        "krum": KrumWeighting,
        "mgda": MGDAWeighting,
        "nash_mtl": NashMTLWeighting,
        "pcd": PCDWeighting,
        "pcgrad": PCGradWeighting,
        "random": RandomWeighting,
        "upgrad": UPGradWeighting,
    }
)
"""Every weighting that `make_weighting` knows."""

DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"cagrad": {"c": 0.5}, "fairgrad": {"alpha": 2.0}, "krum": {"n_byzantine": 0}}
)
"""What TorchJD requires: CAGrad's c = 0.5 (Liu et al., NeurIPS 2021), FairGrad's alpha = 2 (Ban & Ji, ICML 2024)."""

NOT_OF_A_GRAMIAN: Mapping[str, str] = MappingProxyType(
    {
        "excess_mtl": "it keeps a running sum of every squared gradient entry, K times the network",
        "modo": "it needs the products of gradients of two independent batches",
        "sdmgrad": "it needs the products of gradients of two independent batches",
        "graddrop": "it takes signs of single gradient entries",
        "trimmed_mean": "it sorts single gradient entries",
    }
)
"""Methods of TorchJD that no function of one step's Gramian can be, and why."""

_OURS = (DDGBWeighting, GradNormWeighting, DBMTLWeighting)


def make_weighting(name: str, **options: Any) -> Weighting[PSDMatrix]:
    """The weighting of that name; `options` are its constructor's (`make_weighting("ddgb", tau=1.0)`).

    `constant` takes `weights`, one a task; `cr_mogm` smooths another method's weights: `of`, `alpha`, and that one's options.

    :raises ValueError: an unknown name, an option the method does not have, or an extra package it needs.
    """
    weighting = _build(name, options)
    return weighting if isinstance(weighting, _OURS) else ActiveTasksWeighting(weighting)


def _build(name: str, options: Mapping[str, Any]) -> Weighting[PSDMatrix]:
    if name in NOT_OF_A_GRAMIAN:
        raise ValueError(f"`{name}` can't be had from the Gramian of a step: {NOT_OF_A_GRAMIAN[name]}")
    return make_by_name(WEIGHTINGS, DEFAULTS, name, options)
