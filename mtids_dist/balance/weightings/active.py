"""TorchJD's weightings in steps in which some tasks have no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchjd import Stateful
from torchjd.aggregation import ConstantWeighting, GradVacWeighting, KrumWeighting, PCGradWeighting, RandomWeighting, Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.weightings.activity import active_tasks

_RANDOM = (PCGradWeighting, GradVacWeighting, RandomWeighting)


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
        return any(isinstance(module, _RANDOM) for module in self.modules())

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
        if active.all() or isinstance(self.weighting, ConstantWeighting):
            self._last = self.weighting(gramian).to(gramian)
            return self._last
        uniform = torch.full_like(norms, 1.0 / len(norms))
        if isinstance(self.weighting, Stateful):
            return uniform if self._last is None else torch.where(active, self._last.to(uniform), uniform)
        if active.sum() >= self._fewest:
            uniform[active] = self.weighting(gramian[active][:, active])
        return uniform

    @property
    def _fewest(self) -> int:
        """Tasks that the method needs: Krum compares each with its neighbours."""
        return self.weighting.n_byzantine + 3 if isinstance(self.weighting, KrumWeighting) else 1

    def get_extra_state(self) -> dict[str, Any]:
        """The last weights and the method's own state, which TorchJD keeps in buffers that are None until their first step."""
        return {"last": self._last, "methods": [_state_of(module) for module in self.weighting.modules()]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts them back, also into a fresh object."""
        self._last = state["last"]
        for module, saved in zip(self.weighting.modules(), state["methods"], strict=True):
            for name, buffer in saved["buffers"].items():
                setattr(module, name, buffer)
            if hasattr(module, "_state_key"):
                # TorchJD throws its buffers away when this does not fit the Gramian's size and dtype.
                module._state_key = saved["key"]

    def __repr__(self) -> str:
        return repr(self.weighting)


def _state_of(module: torch.nn.Module) -> dict[str, Any]:
    # Cloned, since GradVac writes into its buffer in place.
    buffers = {name: None if b is None else b.clone() for name, b in module._buffers.items()}
    return {"buffers": buffers, "key": getattr(module, "_state_key", None)}
