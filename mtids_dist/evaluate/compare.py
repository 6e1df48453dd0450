"""Several runs over several splits as lines of one table: each named network, and size alone on the same splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtids_dist.errors import InputError

SIZE_ONLY = "size_only"

Document = Mapping[str, Any]
"""The contents of an evaluation.json."""


def compare(runs: Mapping[str, Sequence[Document]]) -> dict[str, Any]:
    """Mean AUC over the tasks, averaged over the splits, for each name in `runs` and for size alone.

    `runs`: name -> evaluation documents, one a split. `lines.<name>` holds `mean_auc`, its value on each split
    (`by_split`, in the order of `splits`), the mean of each task (`tasks`) and `above_size`.
    InputError where the names were not evaluated on the same splits: their means could not be compared.
    """
    by_split = {name: _by_split(name, documents) for name, documents in runs.items()}
    splits = _common_splits(by_split)
    lines = {name: _line([of_name[split]["tasks"] for split in splits]) for name, of_name in by_split.items()}
    first = next(iter(by_split.values()), {})
    size = _line([first[split]["baselines"][SIZE_ONLY] for split in splits])
    for line in lines.values():
        line["above_size"] = _difference(line["mean_auc"], size["mean_auc"])
    return {"splits": [f"{split} {fold}" for _, split, fold in splits], "lines": {**lines, SIZE_ONLY: size}}


_Split = tuple[str, str, int]


def _by_split(name: str, documents: Sequence[Document]) -> dict[_Split, Document]:
    keyed = {(str(d["store"]), str(d["split"]), int(d["fold"])): d for d in documents}
    if not documents or len(keyed) < len(documents):
        raise InputError("a line needs one evaluation a split", where=name, found=f"{len(documents)} of {len(keyed)} splits")
    return keyed


def _common_splits(by_split: Mapping[str, Mapping[_Split, Document]]) -> list[_Split]:
    names = list(by_split)
    for name in names[1:]:
        if by_split[name].keys() != by_split[names[0]].keys():
            raise InputError(f"not evaluated on the same splits as {names[0]}", where=name, found=sorted(by_split[name]))
    return sorted(by_split[names[0]]) if names else []


def _line(metrics: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    by_split = [_mean([m.get("auc") for m in of_split.values()]) for of_split in metrics]
    tasks = dict.fromkeys(task for of_split in metrics for task in of_split)
    of_task = {task: _mean([of_split.get(task, {}).get("auc") for of_split in metrics]) for task in tasks}
    return {"mean_auc": _mean(by_split), "by_split": by_split, "tasks": of_task}


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [v for v in values if v is not None]
    return float(np.mean(defined)) if defined else None


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
