"""The balance part of a run description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix
from torchjd.scalarization import Scalarizer

from mtids_dist.balance.balancer import GradientBalancer
from mtids_dist.balance.gramians import GRAMIANS, Gramian, SketchGramian
from mtids_dist.balance.loss_balancer import LossBalancer
from mtids_dist.balance.non_finite import OnNonFinite, check_on_non_finite
from mtids_dist.balance.normalise import Normalise, check_normalise
from mtids_dist.balance.protocol import Balancer
from mtids_dist.balance.scalarizations import SCALARIZATIONS, make_scalarization
from mtids_dist.balance.weightings import WEIGHTINGS, SeesLosses, make_weighting

PLAIN = "none"
"""The method that balances nothing: the plain backward of the mean loss."""


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """How the tasks are balanced: by weights on their gradients, from a Gramian, or by weights on their losses.

    :param method: a name that `make_weighting` or else `make_scalarization` knows, or none. `equal`, `sum` and `constant` are
        of gradients; a plain backward of the mean loss is `none`.
    :param options: that method's own options (`tau`, `beta`, `dynamic`, `direction` for `ddgb`).
    :param gramian: exact | sketch (fewer bytes) | representation (one backward through the shared part); not for losses.
    :param sketch_size: numbers a task that a sketch sends.
    :param every: find weights every so many steps; in between a step costs a plain backward; not for losses.
    :param normalise: none | weights (that sum to 1) | length (an update as long as the plain mean's; not for losses): takes a
        method's effect on the learning rate away.
    :param on_non_finite: stop with an error, or skip the step, where a gradient has nan or inf.
    :raises ValueError: an unknown name or option, or a number out of its range.
    """

    method: str = "ddgb"
    options: Mapping[str, Any] = field(default_factory=dict)
    gramian: str = "exact"
    sketch_size: int = 4096
    every: int = 1
    normalise: Normalise = "none"
    on_non_finite: OnNonFinite = "stop"

    def __post_init__(self) -> None:
        if self.gramian not in GRAMIANS:
            raise ValueError(f"`gramian` must be one of {', '.join(GRAMIANS)}, found {self.gramian!r}")
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1, found {self.every!r}")
        check_normalise(self.normalise)
        check_on_non_finite(self.on_non_finite)
        SketchGramian(self.sketch_size)
        if self.weights_losses:
            self._check_losses()
        else:
            self.build()

    @property
    def weights_losses(self) -> bool:
        """Whether losses are weighted instead of gradients: no Gramian is made."""
        return self.method == PLAIN or (self.method in SCALARIZATIONS and self.method not in WEIGHTINGS)

    @property
    def needs_features(self) -> bool:
        """Whether the border tensors have to be given."""
        return not self.weights_losses and (self.every > 1 or self.gramian == "representation")

    def check_tasks(self, num_tasks: int) -> None:
        """Asks the method for weights of so many tasks once.

        :raises ValueError: it can't balance so many.
        """
        if self.weights_losses:
            self.build_scalarization(num_tasks)
            return
        weighting = self.build()
        if isinstance(weighting, SeesLosses):
            weighting.observe(torch.ones(num_tasks))
        weighting(torch.eye(num_tasks, dtype=torch.float64))

    def build(self) -> Weighting[PSDMatrix]:
        """A fresh weighting."""
        return make_weighting(self.method, **self.options)

    def build_gramian(self, seed: int = 0) -> Gramian:
        """A fresh Gramian; a sketch's projections come from `seed`."""
        return SketchGramian(self.sketch_size, seed) if self.gramian == "sketch" else GRAMIANS[self.gramian]()

    def build_scalarization(self, num_tasks: int) -> Scalarizer | None:
        """A fresh scalarization; None where gradients are weighted. What it learns belongs in the optimizer."""
        if not self.weights_losses:
            return None
        return make_scalarization("equal" if self.method == PLAIN else self.method, num_tasks, **self.options)

    def build_balancer(
        self, shared: Iterable[nn.Parameter], scalarization: Scalarizer | None, *, engine: Any = None, seed: int = 0
    ) -> Balancer:
        """A fresh balancer.

        :param scalarization: what `build_scalarization` made.
        :param seed: of a sketch's projections.
        """
        if scalarization is not None:
            return LossBalancer(scalarization, engine=engine, normalise=self.normalise, on_non_finite=self.on_non_finite)
        return GradientBalancer(
            shared,
            self.build(),
            engine=engine,
            gramian=self.build_gramian(seed),
            every=self.every,
            normalise=self.normalise,
            on_non_finite=self.on_non_finite,
        )

    def _check_losses(self) -> None:
        if self.gramian != "exact" or self.every != 1:
            raise ValueError(f"`gramian` and `every` are of methods that weight gradients; {self.method!r} weights losses")
        if self.normalise == "length":
            raise ValueError(f"`normalise` must be none or weights with {self.method!r}, which weights losses, found 'length'")
        lengths = [len(values) for values in self.options.values() if isinstance(values, list | tuple)]
        self.build_scalarization(lengths[0] if lengths else 2)
