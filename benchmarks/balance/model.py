"""A model of what a step costs over R ranks: computing as on one rank, collectives of a latency and a bandwidth, and copying.

gloo passes pieces round a ring (all-reduce) or sends each rank its own (all-to-all), so that of B bytes

    all-reduce  2 (R - 1) (latency_r + B / R / bandwidth)        all-to-all  (R - 1) (latency_a + B / R / bandwidth)

The three constants are fitted to collectives that were timed, and a fourth one to the steps: copying gradients together for the
network and apart, in seconds a byte. An exchange of `exact` is hidden behind the next task's backward as far as that goes; every
way reduces its gradients at the end of the step, which hides nothing. With trees, as NCCL has them for what is small, an
all-reduce takes 2 log2(R) messages instead of 2 (R - 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from mtids_dist.balance import SketchGramian

SKETCH_NUMBERS = SketchGramian().m
FLOAT32, FLOAT64 = 4, 8
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """Seconds, seconds, and bytes a second.

    :param trees: whether all-reduces go through trees instead of round a ring.
    """

    latency_reduce: float
    latency_exchange: float
    bandwidth: float
    trees: bool = False

    def reduce(self, sent: float, ranks: int) -> float:
        """Seconds of an all-reduce of so many bytes."""
        messages = math.log2(ranks) if self.trees else ranks - 1
        return 2 * (messages * self.latency_reduce + (ranks - 1) * sent / ranks / self.bandwidth)

    def exchange(self, sent: float, ranks: int) -> float:
        """Seconds of an all-to-all of so many bytes."""
        return (ranks - 1) * (self.latency_exchange + sent / ranks / self.bandwidth)


@dataclass(frozen=True)
class Model:
    """Of K tasks on a shared part of so many bytes.

    :param alone: a step's seconds on one rank, by way, where nothing is sent.
    :param copying: seconds a byte.
    """

    network: Network
    tasks: int
    shared_bytes: int
    alone: Mapping[str, float]
    copying: float = 0.0

    def seconds(self, way: str, ranks: int, crowding: float = 1.0) -> float:
        """A step's. `crowding`: by how much computing takes longer where ranks share cores."""
        copied = self.copies(way) * self.shared_bytes * self.copying if ranks > 1 else 0.0
        gradients = self.network.reduce(self.shared_bytes, ranks)
        return crowding * (self.alone[way] + copied) + gradients + self._balancing(way, ranks, crowding)

    def copies(self, way: str) -> int:
        """Gradients of the shared part that are copied for the network, beyond a plain step's."""
        return {"plain": 0, "exact": 1 + self.tasks}.get(way, 1)

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
        finite = self.network.reduce(self.tasks, ranks)  # which tasks of which rank are free of nan and inf
        return finite + (products if way == "representation" else 0.0)


def fitted(runs: Sequence[Run]) -> Model:
    """To a run on one rank and others on more; least squares of the relative errors, nothing below zero."""
    (alone,) = (run for run in runs if run["ranks"] == 1)
    more = [run for run in runs if run["ranks"] > 1]
    seconds = {way: step["seconds"] for way, step in alone["steps"].items()}
    model = Model(_network(more), alone["tasks"], alone["shared_bytes"], seconds)
    rows, wanted = [], []
    for run in more:
        for way in (way for way in seconds if model.copies(way)):
            measured = run["steps"][way]["seconds"]
            rows.append([crowding(run) * model.copies(way) * model.shared_bytes / measured])
            wanted.append(1 - model.seconds(way, run["ranks"], crowding(run)) / measured)
    return replace(model, copying=float(nnls(np.array(rows), np.array(wanted))[0][0]))


def crowding(run: Run) -> float:
    """How many ranks shared a core."""
    return float(max(1.0, run["ranks"] / run["cores"]))


def _network(runs: Sequence[Run]) -> Network:
    rows = []
    for run in runs:
        for timed in run["collectives"]:
            others, sent = run["ranks"] - 1, FLOAT32 * timed["numbers"] / run["ranks"]
            reduces = timed["collective"] == "all_reduce"
            row = (2 * others, 0, 2 * others * sent) if reduces else (0, others, others * sent)
            rows.append(np.array(row) / timed["seconds"])
    (latency_reduce, latency_exchange, seconds_a_byte), _ = nnls(np.array(rows), np.ones(len(rows)))
    return Network(float(latency_reduce), float(latency_exchange), float(1 / seconds_a_byte))
