"""A model of what a step costs over R ranks: computing as measured on one rank, and collectives of a latency and a bandwidth.

gloo passes pieces round a ring (all-reduce) or sends each rank its own (all-to-all), so that of B bytes

    all_reduce  2 (R - 1) latency_r + 2 (R - 1) / R B / bandwidth        all_to_all  (R - 1) latency_a + (R - 1) / R B / bandwidth

The three constants are fitted to collectives that were timed. An exchange of `exact` is hidden behind the next task's backward
as far as that goes; every way reduces its gradients at the end of the step, which hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

SKETCH_NUMBERS = 4096
FLOAT32, FLOAT64 = 4, 8


@dataclass(frozen=True)
class Network:
    """Seconds, seconds, and bytes a second."""

    latency_reduce: float
    latency_exchange: float
    bandwidth: float

    def reduce(self, sent: float, ranks: int) -> float:
        """Seconds of an all-reduce of so many bytes."""
        return 2 * (ranks - 1) * (self.latency_reduce + sent / ranks / self.bandwidth)

    def exchange(self, sent: float, ranks: int) -> float:
        """Seconds of an all-to-all of so many bytes."""
        return (ranks - 1) * (self.latency_exchange + sent / ranks / self.bandwidth)


def fitted(runs: Sequence[Mapping[str, Any]]) -> Network:
    """From the collectives of runs on two or more ranks; least squares of the relative errors, nothing below zero."""
    rows = []
    for run in runs:
        for timed in run["collectives"]:
            others, sent = run["ranks"] - 1, FLOAT32 * timed["numbers"] / run["ranks"]
            reduces = timed["collective"] == "all_reduce"
            row = (2 * others, 0, 2 * others * sent) if reduces else (0, others, others * sent)
            rows.append(np.array(row) / timed["seconds"])
    (latency_reduce, latency_exchange, seconds_a_byte), _ = nnls(np.array(rows), np.ones(len(rows)))
    return Network(float(latency_reduce), float(latency_exchange), float(1 / seconds_a_byte))


@dataclass(frozen=True)
class Model:
    """Of K tasks on a shared part of so many bytes.

    :param alone: a step's seconds on one rank, by way, where nothing is sent.
    """

    network: Network
    tasks: int
    shared_bytes: int
    alone: Mapping[str, float]

    def seconds(self, way: str, ranks: int, crowding: float = 1.0) -> float:
        """A step's. `crowding`: by how much computing takes longer where ranks share cores."""
        gradients = self.network.reduce(self.shared_bytes, ranks)
        return crowding * self.alone[way] + gradients + self._balancing(way, ranks, crowding)

    def _balancing(self, way: str, ranks: int, crowding: float) -> float:
        products = self.network.reduce(FLOAT64 * self.tasks**2, ranks)
        if way == "plain":
            return 0.0
        if way == "exact":
            backward = crowding * (self.alone["exact"] - self.alone["plain"]) / (self.tasks - 1)
            exchange = self.network.exchange(self.shared_bytes, ranks)
            return products + exchange + (self.tasks - 1) * max(0.0, exchange - backward)
        if way == "sketch":
            return self.network.reduce(FLOAT32 * self.tasks * SKETCH_NUMBERS, ranks)
        finite = self.network.exchange(self.tasks, ranks)  # which tasks of which rank are free of nan and inf
        return finite + (products if way == "representation" else 0.0)
