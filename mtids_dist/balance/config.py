"""The balance part of a run description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.exact import ExactGramian
from mtids_dist.balance.gramian import Gramian
from mtids_dist.balance.representation import RepresentationGramian
from mtids_dist.balance.sketch import SketchGramian
from mtids_dist.balance.weightings import make_weighting

GRAMIANS: Mapping[str, Callable[..., Gramian]] = MappingProxyType(
    {"exact": ExactGramian, "sketch": SketchGramian, "representation": RepresentationGramian}
)
"""Every way to agree on the Gramian, by name."""


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """Which weighting balances the tasks, and from which Gramian.

    :param method: a name that `make_weighting` knows.
    :param options: that method's own options (`tau`, `beta`, `dynamic`, `direction` for `ddgb`).
    :param gramian: exact | sketch (fewer bytes) | representation (one backward through the shared part).
    :param sketch_size: numbers a task that a sketch sends.
    :param every: find weights every so many steps; in between a step costs a plain backward.
    :param on_non_finite: stop with an error, or skip the step, where a gradient has nan or inf.
    :raises ValueError: an unknown name or option, or a number out of its range.
    """

    method: str = "ddgb"
    options: Mapping[str, Any] = field(default_factory=dict)
    gramian: str = "exact"
    sketch_size: int = 4096
    every: int = 1
    on_non_finite: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        self.build()
        self.build_gramian()
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1, found {self.every!r}")

    def build(self) -> Weighting[PSDMatrix]:
        """A fresh weighting."""
        return make_weighting(self.method, **self.options)

    def build_gramian(self, seed: int = 0) -> Gramian:
        """A fresh Gramian; a sketch's projections come from `seed`."""
        if self.gramian not in GRAMIANS:
            raise ValueError(f"`gramian` must be one of {', '.join(GRAMIANS)}, found {self.gramian!r}")
        return SketchGramian(self.sketch_size, seed) if self.gramian == "sketch" else GRAMIANS[self.gramian]()

    @property
    def needs_features(self) -> bool:
        """Whether the border tensors have to be given."""
        return self.every > 1 or self.gramian == "representation"
