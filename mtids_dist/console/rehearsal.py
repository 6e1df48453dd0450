"""What one step of a run has shown, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mtids_dist.console.terminal import number

LABELS = {"buckets": "reduction buckets", "balancer": "balancer's rows", "optimizer": "optimizer and master weights"}
"""Of parts whose own name does not say what they are."""


def rehearsal_table(found: Mapping[str, Any]) -> str:
    """The JSON data of a rehearsal as lines of a name and what was found."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _lines(found):
        table.add_row(name, value)
    plain = Console(width=160, no_color=True, highlight=False, markup=False)
    with plain.capture() as capture:
        plain.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "one step", f"{found['step_s']:.2f} s, {_losses(found['loss'])}"
    yield "batch", f"{found['rows']} of {found['batch_size']} crops{_why_fewer(found)}, {found['source']}"
    yield "parameters", _parameters(found["parameters"])
    yield "device", f"{found['device']} ({found['device_name']}), {found['precision']}, {_stage(found)}"
    yield "scale", _scale(found)
    yield "memory a worker", _memory(found["memory_mib"])
    for note in found["notes"]:
        yield "note", note
    for name, package in found["packages"].items():
        yield name, f"{package['version']}, {package['folder']}"


def _losses(losses: Mapping[str, float | None]) -> str:
    return "loss " + ", ".join(f"{task} {number(loss)}" for task, loss in losses.items())


def _why_fewer(found: Mapping[str, Any]) -> str:
    if found["rows"] == found["batch_size"]:
        return ""
    parts = found["micro_batches"]
    return f" ({'two' if parts == 1 else f'two for each of {parts} micro-batches'}: a CPU is to answer soon)"


def _parameters(parameters: Mapping[str, int]) -> str:
    parts = ", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in parameters.items() if part != "total")
    return f"{parameters['total']:,}: {parts}"


def _stage(found: Mapping[str, Any]) -> str:
    why = f" instead of {found['zero_stage']}: {found['stage_note']}" if found["stage_note"] else ""
    return f"ZeRO stage {found['running_stage']}{why}"


def _scale(found: Mapping[str, Any]) -> str:
    steps = "steps per epoch unknown" if found["steps_per_epoch"] is None else f"{found['steps_per_epoch']} steps per epoch"
    return f"{found['workers']} worker(s), {found['global_batch']} crops a global batch, {steps}"


def _memory(memory_mib: Mapping[str, float]) -> str:
    parts = ", ".join(
        f"{LABELS.get(part, part)} {mib:,.1f}" for part, mib in memory_mib.items() if part not in ("total", "available")
    )
    return f"about {memory_mib['total']:,.0f} of {memory_mib['available']:,.0f} MiB: {parts}"
