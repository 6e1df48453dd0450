"""Evaluating a network on a split of a store: what becomes evaluation.json and predictions.parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from mtids_dist.data import Progress, Split, Store, no_progress
from mtids_dist.errors import InputError
from mtids_dist.evaluate.assess import assess
from mtids_dist.evaluate.baseline import SizeBaseline, size_baseline
from mtids_dist.evaluate.bootstrap import PatientBootstrap
from mtids_dist.evaluate.predict import Predictions, predict_store, probability_column
from mtids_dist.tasks import Task

EVALUATION, PREDICTIONS = "evaluation.json", "predictions.parquet"


@dataclass(frozen=True)
class Evaluation:
    """`document` is the contents of evaluation.json."""

    document: Mapping[str, Any]
    predictions: Predictions
    baseline: SizeBaseline

    def write(self, folder: Path) -> None:
        """Write predictions.parquet, then evaluation.json, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        table = self.predictions.table()
        for task, p_NC in self.baseline.probabilities.items():
            table = table.append_column(f"{task}_size_only_probabilities", probability_column(p_NC))
        drafts = {name: folder / f".{name}.{os.getpid()}.tmp" for name in (PREDICTIONS, EVALUATION)}
        pq.write_table(table, drafts[PREDICTIONS], compression="zstd")
        drafts[EVALUATION].write_text(json.dumps(self.document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        for name, draft in drafts.items():
            draft.replace(folder / name)


def evaluate(
    model: nn.Module,
    store: Store,
    tasks: Mapping[str, Task],
    *,
    split: Split,
    held_out: int,
    window: tuple[float, float],
    batch_size: int = 64,
    device: torch.device | str | None = None,
    checkpoint: Path | None = None,
    resamples: int = 500,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Evaluation:
    """Predict `split` of `store` with fold `held_out` held out, and measure every task, the fused tasks and size alone.

    The size-only baseline is fit on the labels of the training folds whatever `split` is. Intervals (`ci95`) come from
    `resamples` draws of whole patients with `seed`. `checkpoint` is only noted.
    InputError: no such fold, an empty split, or a label column that the store does not have.
    """
    _refuse_missing_columns(store, tasks)
    folds = store.folds_of(split, held_out)
    predictions = predict_store(
        model, store, tasks, folds, window=window, batch_size=batch_size, device=device, progress=progress
    )
    baseline = size_baseline(store.labels(store.folds_of(Split.TRAIN, held_out)), predictions.rows, tasks)
    bootstrap = PatientBootstrap(predictions.rows.column("patient").to_pylist(), resamples, seed)
    document = {
        **assess(predictions, baseline, bootstrap),
        "split": split.value,
        "fold": held_out,
        "folds": list(folds),
        "rows": len(predictions.rows),
        "patients": len(set(bootstrap.patients)),
        "store": str(store.path.resolve()),
        "value_kind": store.manifest.value_kind,
        "window": list(window),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "bootstrap": {"unit": "patient", "resamples": resamples, "seed": seed},
    }
    return Evaluation(document, predictions, baseline)


def _refuse_missing_columns(store: Store, tasks: Mapping[str, Task]) -> None:
    there = store.manifest.label_columns
    for name, task in tasks.items():
        if missing := [column for column in task.column if column not in there]:
            where = f"{store.path} task {name}"
            raise InputError("the store has no such label column", where=where, found=missing[0], allowed=", ".join(there))
