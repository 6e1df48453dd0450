"""What balancing costs on the device beside TorchJD and K backward passes: networks and ways of benchmarks/balance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
from costs import WAYS, interleaved, ratios
from device import Device
from nets import Net, batch
from step import Line, reason
from torch import Tensor
from ways import Step


@dataclass(frozen=True)
class Case:
    """A line of the table.

    :param trunk: one of `nets.TRUNKS`.
    :param tasks: how many there are, K.
    :param rows: crops in a batch.
    :param side: voxels along a crop's edge.
    """

    trunk: str
    tasks: int
    rows: int
    side: int
    dtype: torch.dtype


CASES = (
    Case("demo", 3, 16, 32, torch.float32),
    Case("resnet18", 3, 16, 64, torch.float32),
    Case("resnet18", 3, 16, 64, torch.bfloat16),
    Case("resnet18", 3, 64, 64, torch.bfloat16),
    Case("resnet18", 8, 16, 64, torch.bfloat16),
)


def table(
    device: Device, rounds: int, seed: int, told: Callable[[Line], None], *, rows: int | None = None, side: int | None = None
) -> list[Line]:
    """Return a line for every case.

    :param rows: crops in a batch, instead of each case's own.
    :param side: voxels along a crop's edge, instead of each case's own.
    """
    lines = []
    for case in dict.fromkeys(replace(each, rows=rows or each.rows, side=side or each.side) for each in CASES):
        device.held_gib()  # gives back what the case before has left
        lines.append(measure(case, rounds, seed, device))
        told(lines[-1])
    return lines


def measure(case: Case, rounds: int, seed: int, device: Device) -> Line:
    """Return the plain step's milliseconds, each way's time by it in the same round, and why a way refused."""
    crops, labels = batch(case.rows, case.side, case.tasks, seed)
    data = crops.to(device.name, case.dtype), labels.to(device.name)
    steps, refused = tried(case, data, seed, device)
    line = {"trunk": case.trunk, "tasks": case.tasks, "batch": case.rows, "side": case.side, "refused": refused}
    line["precision"] = "bf16" if case.dtype is torch.bfloat16 else "fp32"
    try:
        seconds = interleaved(steps, data, rounds, wait=device.wait) if "plain" in steps else {}
    except Exception as error:  # in a later step than the first: the other cases are still measured
        return {**line, "refused": {**refused, "all ways": reason(error)}}
    if not seconds:
        return line
    return {**line, "plain_ms": 1e3 * median(seconds["plain"]), "ratios": ratios(seconds)}


def tried(case: Case, data: tuple[Tensor, Tensor], seed: int, device: Device) -> tuple[dict[str, Step], dict[str, str]]:
    """Return the ways that can take a step, each on a network of its own, and why the others can't."""
    found = {name: first_step(name, case, data, seed, device) for name in WAYS}
    steps = {name: step for name, step in found.items() if isinstance(step, Step)}
    return steps, {name: why for name, why in found.items() if isinstance(why, str)}


def first_step(name: str, case: Case, data: tuple[Tensor, Tensor], seed: int, device: Device) -> Step | str:
    """Return a way that has taken its first step, or why it can't."""
    try:
        step = Step(name, Net(case.trunk, case.tasks, seed).to(device.name, case.dtype))
        step(*data)
        device.wait()
    except Exception as error:
        return reason(error)
    return step
