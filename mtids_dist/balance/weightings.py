"""Weightings by name: DD-GB and TorchJD's, each "Gramian in, weights out", fit for tasks that have no gradient in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torchjd import Stateful
from torchjd.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    DualProjWeighting,
    FairGradWeighting,
    GradVacWeighting,
    IMTLGWeighting,
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

from mtids_dist.balance.activity import active_tasks
from mtids_dist.balance.ddgb import DDGBWeighting

WEIGHTINGS: Mapping[str, Callable[..., Weighting[PSDMatrix]]] = MappingProxyType(
    {
        "ddgb": DDGBWeighting,
        "equal": MeanWeighting,
        "sum": SumWeighting,
        "aligned_mtl": AlignedMTLWeighting,
        "cagrad": CAGradWeighting,
        "dualproj": DualProjWeighting,
        "fairgrad": FairGradWeighting,
        "gradvac": GradVacWeighting,
        "imtl_g": IMTLGWeighting,
        "mgda": MGDAWeighting,
        "pcd": PCDWeighting,
        "pcgrad": PCGradWeighting,
        "random": RandomWeighting,
        "upgrad": UPGradWeighting,
    }
)
"""Every weighting that `make_weighting` knows."""

DEFAULTS: Mapping[str, Mapping[str, float]] = MappingProxyType({"cagrad": {"c": 0.5}, "fairgrad": {"alpha": 2.0}})
"""What TorchJD requires: CAGrad's c = 0.5 (Liu et al., NeurIPS 2021) and FairGrad's alpha = 2 (Ban & Ji, ICML 2024)."""

_RANDOM = (PCGradWeighting, GradVacWeighting, RandomWeighting)


def make_weighting(name: str, **options: Any) -> Weighting[PSDMatrix]:
    """The weighting of that name; `options` are its constructor's (`make_weighting("ddgb", tau=1.0)`).

    :raises ValueError: an unknown name, an option the method does not have, or an extra package it needs.
    """
    if name not in WEIGHTINGS:
        close = get_close_matches(name, WEIGHTINGS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`name` must be one of {', '.join(WEIGHTINGS)}, found {name!r}{hint}")
    try:
        weighting = WEIGHTINGS[name](**{**DEFAULTS.get(name, {}), **options})
    except (TypeError, ImportError) as error:
        raise ValueError(f"`{name}` can't be made with options {options}: {error}") from error
    return weighting if isinstance(weighting, DDGBWeighting) else ActiveTasksWeighting(weighting)


class ActiveTasksWeighting(Weighting[PSDMatrix], Stateful):
    """Shows a weighting only what it can deal with when some tasks have no gradient in a step.

    With a zero row MGDA and CAGrad return no update and FairGrad explodes. So a method without state sees the Gramian of the
    active tasks only; a method with state is not called and its last weights serve again. A task without gradient gets 1/K.
    """

    def __init__(self, weighting: Weighting[PSDMatrix]) -> None:
        super().__init__()
        self.weighting = weighting
        self._last: Tensor | None = None

    @property
    def draws_random(self) -> bool:
        """Whether two ranks with the same Gramian could get different weights."""
        return isinstance(self.weighting, _RANDOM)

    def reset(self) -> None:
        """Forgets the last weights and the method's own state."""
        self._last = None
        if isinstance(self.weighting, Stateful):
            self.weighting.reset()

    @torch.no_grad()
    def forward(self, gramian: PSDMatrix, /) -> Tensor:
        """Weights [K] from the Gramian [K, K]."""
        norms = gramian.diagonal().clamp(min=0).sqrt()
        active = torch.from_numpy(active_tasks(norms.double().cpu().numpy())).to(gramian.device)
        if active.all():
            self._last = self.weighting(gramian)
            return self._last
        uniform = torch.full_like(norms, 1.0 / len(norms))
        if isinstance(self.weighting, Stateful):
            return uniform if self._last is None else torch.where(active, self._last.to(uniform), uniform)
        if active.any():
            uniform[active] = self.weighting(gramian[active][:, active])
        return uniform

    def get_extra_state(self) -> dict[str, Any]:
        """The last weights and the method's own state, which TorchJD keeps in buffers that are None until their first step."""
        key = getattr(self.weighting, "_state_key", None)
        # Cloned, since GradVac writes into its buffer in place.
        buffers = {name: None if b is None else b.clone() for name, b in self.weighting._buffers.items()}
        return {"last": self._last, "buffers": buffers, "key": key}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts them back, also into a fresh object."""
        self._last = state["last"]
        for name, buffer in state["buffers"].items():
            setattr(self.weighting, name, buffer)
        if hasattr(self.weighting, "_state_key"):
            # TorchJD throws its buffers away when this does not fit the Gramian's size and dtype.
            self.weighting._state_key = state["key"]

    def __repr__(self) -> str:
        return repr(self.weighting)
