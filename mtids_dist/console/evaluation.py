"""An evaluation as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mtids_dist.console.terminal import number


def evaluation_table(document: Mapping[str, Any]) -> str:
    """The contents of an evaluation.json as a table: each task beside what size alone can tell, then the fused tasks."""
    table = Table("task", "n", "accuracy", "balanced accuracy", "AUC (95 % interval)", "size alone", box=None, padding=(0, 2))
    size_only = document["baselines"]["size_only"]
    for task, found in document["tasks"].items():
        table.add_row(task, *_metric_cells(found), number(size_only.get(task, {}).get("auc")))
    for task, found in document["fused"].items():
        table.add_row(f"{task}, fused", *_metric_cells(found), "")
    mean = document["mean_auc"]
    table.add_row("mean AUC", "", "", "", number(mean["network"]), number(mean["size_only"]))
    plain = Console(width=120, no_color=True)
    with plain.capture() as capture:
        plain.print(f"{document['split']} split: {document['rows']} rows of {document['patients']} patients", markup=False)
        plain.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _metric_cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    interval = found["ci95"].get("auc")
    between = f" ({number(interval[0])} to {number(interval[1])})" if interval else ""
    return str(found["n"]), number(found["accuracy"]), number(found["balanced_accuracy"]), number(found["auc"]) + between
