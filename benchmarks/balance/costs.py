"""What a step costs beside a plain one, all ways interleaved in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from statistics import median

import torch
from nets import Net, batch
from torch import Tensor
from ways import OURS, PEERS, Step

Line = dict[str, float | str | int]

SEED, SIDE = 0, 32
CASES = (("demo", 16, 1.0), ("small_resnet", 8, 2.0), ("resnet18", 8, 0.3))
"""Trunk, crops of SIDE^3, and which share of the rounds it is given."""
WAYS = ("plain", *OURS, *PEERS)


def nothing() -> None:
    """What there is to wait for on a CPU."""


def interleaved(
    steps: dict[str, Step], data: tuple[Tensor, Tensor], rounds: int, *, wait: Callable[[], None] = nothing
) -> dict[str, list[float]]:
    """Seconds of each way's step in every round; each round begins with another way.

    :param wait: until the device has done all that it was given.
    """
    names = list(steps)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(2):
        for name in names:
            steps[name](*data)
    wait()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            steps[name](*data)
            wait()
            found[name].append(time.perf_counter() - began)
    return found


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median over rounds of a way's time by the plain step's of the same round."""
    return {name: median(t / plain for t, plain in zip(each, seconds["plain"], strict=True)) for name, each in seconds.items()}


def measure(trunk: str, tasks: int, rows: int, side: int, rounds: int) -> Line:
    """A line of the table: each way's ratio, and the plain step's milliseconds."""
    steps = {name: Step(name, Net(trunk, tasks, SEED)) for name in WAYS}
    seconds = interleaved(steps, batch(rows, side, tasks, SEED), rounds)
    return {"trunk": trunk, "tasks": tasks, "plain_ms": 1e3 * median(seconds["plain"]), **ratios(seconds)}


def table(sizes: Sequence[int], rounds: int, threads: int, told: Callable[[Line], None]) -> list[Line]:
    """All lines: every network with every number of tasks, each in a new process, whose memory no other line has cut up."""
    lines = []
    with get_context("spawn").Pool(1, torch.set_num_threads, (threads,), maxtasksperchild=1) as pool:
        for trunk, rows, share in CASES:
            for tasks in sizes:
                lines.append(pool.apply(measure, (trunk, tasks, rows, SIDE, max(5, int(rounds * share)))))
                told(lines[-1])
    return lines
