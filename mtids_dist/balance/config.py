"""The balance part of a run description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchjd.aggregation import Weighting
from torchjd.linalg import PSDMatrix

from mtids_dist.balance.weightings import make_weighting


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    """Which weighting balances the tasks.

    :param method: a name that `make_weighting` knows.
    :param options: that method's own options (`tau`, `beta`, `dynamic`, `direction` for `ddgb`).
    :raises ValueError: an unknown method or option.
    """

    method: str = "ddgb"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Weighting[PSDMatrix]:
        """A fresh weighting."""
        return make_weighting(self.method, **self.options)
