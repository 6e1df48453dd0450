"""A run folder as a real run would leave it, over a real tiny store and an untrained network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from mtids_dist.data import Split, Store, StoreWriter, crop_column, open_store
from mtids_dist.evaluate import evaluate
from mtids_dist.model import GateUse
from mtids_dist.stations import MEDIASTINAL
from mtids_dist.tasks import MTIDS_TASKS, Task

SIDE = 24
WINDOW = (-200.0, 300.0)


def make_store(path: Path, patients: int = 60) -> Store:
    """Blobs in noise: brighter and rougher when metastatic, with an offset that tells the station."""
    writer = StoreWriter(path=path, crop_shape=(SIDE, SIDE, SIDE), spacing_mm=1.0)
    writer.begin()
    parts = [writer.write_part(fold, 0, _rows(fold, patients // 3)) for fold in range(3)]
    writer.finish(parts, made_by="test", folds=3, counts={})
    return open_store(path)


def _rows(fold: int, patients: int) -> pa.Table:
    generator = np.random.default_rng(fold)
    rows = patients * 4
    station, metastasis = generator.integers(0, 11, rows), generator.integers(0, 2, rows)
    size = np.exp(generator.normal(2.0 + 0.25 * metastasis, 0.35))
    crops = np.stack([_crop(generator, *label) for label in zip(station, metastasis, size, strict=True)])
    return pa.table(
        {
            "crop": crop_column(crops),
            "patient": [f"{fold}{i // 4:07x}" for i in range(rows)],
            "series": ["s"] * rows,
            "node": [f"{fold}{i:015x}" for i in range(rows)],
            "station": np.array(MEDIASTINAL)[station],
            "metastasis": pa.array([None if i % 9 == 0 else int(m) for i, m in enumerate(metastasis)], pa.int8()),
            "short_axis_mm": pa.array([None if i % 17 == 0 else float(s) for i, s in enumerate(size)], pa.float32()),
        }
    )


def _crop(generator: np.random.Generator, station: int, metastasis: int, size: float) -> np.ndarray:
    grid = np.indices((SIDE, SIDE, SIDE)) - (SIDE - 1) / 2
    distance = np.sqrt((grid**2).sum(0)) + generator.normal(0, 0.3 + metastasis, (SIDE,) * 3)
    tissue = np.where(distance < size / 2 + 1, 60 + 40 * metastasis, -80)
    tissue[:, : 1 + station % 4, : 2 + 2 * (station // 4)] = -900
    return (tissue + generator.normal(0, 20, tissue.shape)).astype(np.int16)


class Network(nn.Module):
    """Logits that know the labels as well as a decent network would, and gates that differ between tasks."""

    def __init__(self, store: Store, folds: tuple[int, ...], tasks: dict[str, Task]) -> None:
        super().__init__()
        self._batches = self._noisy(store.labels(folds), tasks)
        self._tasks = tasks
        self._use: dict[str, GateUse] = {}

    @staticmethod
    def _noisy(rows: pa.Table, tasks: dict[str, Task]) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for row in rows.to_pylist():
            labels = {t: int(task.encode({c: [row[c]] for c in task.column})[0]) for t, task in tasks.items()}
            noise = {t: torch.randn(task.num_classes, generator=generator) for t, task in tasks.items()}
            yield {t: n + 2.0 * (torch.arange(len(n)) == labels[t]) for t, n in noise.items()}

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        self._use.update(self._gates(len(crops)))
        rows = [next(self._batches) for _ in crops]
        return {task: torch.stack([row[task] for row in rows]) for task in self._tasks}

    @contextmanager
    def watched_gates(self) -> Iterator[dict[str, GateUse]]:
        yield self._use

    def _gates(self, rows: int) -> dict[str, GateUse]:
        def use(shared: float, first: float) -> GateUse:
            branch, within = torch.tensor([[shared, 1 - shared]]), torch.tensor([[first, 1 - first]])
            return GateUse(branch.expand(rows, 2), within.expand(rows, 2), torch.ones(rows, 1))

        return {task: use(0.3 + 0.2 * i, 0.7 - 0.2 * i) for i, task in enumerate(self._tasks)}


def metrics_lines(tasks: list[str], steps: int = 400) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(1)
    yield {"kind": "event", "event": "started", "time_s": 1.76e9, "workers": 2}
    for step in range(1, steps + 1):
        fall = np.exp(-step / 150)
        cosines = np.clip(np.array([[1, 0.4, 0.1], [0.4, 1, -0.2], [0.1, -0.2, 1]]) + generator.normal(0, 0.15, (3, 3)), -1, 1)
        loss = {t: float((2.4 - 0.7 * i) * (0.4 + 0.6 * fall) + generator.normal(0, 0.15)) for i, t in enumerate(tasks)}
        yield {
            "kind": "step",
            "step": step,
            "epoch": step // 50,
            "time_s": 1.76e9 + step,
            "loss": {**loss, tasks[-1]: None if step % 11 == 0 else loss[tasks[-1]]},
            "weights": {t: float(np.exp(generator.normal(-0.8 + 0.4 * i, 0.1))) for i, t in enumerate(tasks)},
            "tasks": tasks,
            "cosines": cosines.tolist(),
            "learning_rate": 1e-3,
            "samples_per_s": float(generator.normal(310, 18)),
            "data_wait_share": float(abs(generator.normal(0.04, 0.02))),
            "labels": dict.fromkeys(tasks, 32),
        }
        if step % 50 == 0:
            rise = 1 - fall
            metrics = {t: _metrics(0.5 + (0.25 + 0.08 * i) * rise) for i, t in enumerate(tasks)}
            losses = {t: (2.4 - 0.7 * i) * (0.5 + 0.5 * fall) for i, t in enumerate(tasks)}
            fused = {tasks[0]: _metrics(0.5 + 0.35 * rise)}
            yield {"kind": "validation", "epoch": step // 50, "step": step, "loss": losses, "metrics": metrics, "fused": fused}


def _metrics(auc: float) -> dict[str, float]:
    return {"n": 80, "accuracy": auc - 0.1, "balanced_accuracy": auc - 0.15, "auc": auc}


def write_log(run: Path, tasks: list[str]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics_lines(tasks)))


def make_run(run: Path, store: Store, tasks: dict[str, Task] | None = None) -> Path:
    """A finished run: log, description, versions, evaluation."""
    tasks = dict(MTIDS_TASKS) if tasks is None else tasks
    write_log(run, list(tasks))
    (run / "run.yaml").write_text("train:\n  epochs: 8\nbalance:\n  method: ddgb\n  tau: 0.5\n")
    (run / "versions.json").write_text(json.dumps({"python": "3.11", "torch": torch.__version__}))
    folds = store.folds_of(Split.VALIDATION, 0)
    network = Network(store, folds, tasks)
    evaluate(network, store, tasks, split=Split.VALIDATION, held_out=0, window=WINDOW, resamples=200).write(run)
    return run
