"""How much each task leans on each expert, averaged over nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mtids_dist.model import GateUse


@dataclass(frozen=True)
class MeanGates:
    """Means over nodes. `use` is the mean of branch times expert, M shared then N private: it sums to 1."""

    branch: tuple[float, ...]
    shared: tuple[float, ...]
    private: tuple[float, ...]
    use: tuple[float, ...]

    def to_json(self) -> dict[str, list[float]]:
        """The fields as lists; of `use`, the means of products, which the products of the means would only approximate."""
        return {name: list(getattr(self, name)) for name in ("branch", "shared", "private", "use")}


class GateSums:
    """Adds up gate weights batch by batch, and process by process."""

    def __init__(self) -> None:
        self._rows = 0
        self._sums: dict[str, dict[str, Tensor]] = {}

    def add(self, gates: Mapping[str, GateUse]) -> None:
        """Add one batch's gates of every task."""
        rows = next((len(gate.branch) for gate in gates.values()), 0)
        self._add(rows, {task: _totals(gate) for task, gate in gates.items()})

    def merge(self, other: GateSums) -> None:
        """Add what another one has added up."""
        self._add(other._rows, other._sums)

    def _add(self, rows: int, totals: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._rows += rows
        for task, of_task in totals.items():
            sums = self._sums.setdefault(task, {})
            for name, total in of_task.items():
                sums[name] = sums[name] + total if name in sums else total

    def on_cpu(self) -> GateSums:
        """The same sums on the CPU; until then they stay on the network's device, and nothing waits for it."""
        found = GateSums()
        found._add(self._rows, {task: {name: total.cpu() for name, total in sums.items()} for task, sums in self._sums.items()})
        return found

    def means(self) -> dict[str, MeanGates]:
        """By task; empty where nothing was added."""
        return {task: MeanGates(**{k: tuple((v / self._rows).tolist()) for k, v in s.items()}) for task, s in self._sums.items()}


def _totals(gate: GateUse) -> dict[str, Tensor]:
    parts = {"branch": gate.branch, "shared": gate.shared, "private": gate.private, "use": gate.mixture()}
    return {name: weights.detach().double().sum(0) for name, weights in parts.items()}
