"""The measured part of an evaluation: the heads alone, the fused tasks, and size alone beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtids_dist.evaluate.baseline import SIZE, SizeBaseline
from mtids_dist.evaluate.bootstrap import PatientBootstrap, interval
from mtids_dist.evaluate.metrics import TaskMetrics, confusion, mean_auc, task_metrics
from mtids_dist.evaluate.predict import Predictions

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """One prediction's metrics, with their values under every resample."""

    metrics: TaskMetrics
    resampled: Mapping[str, Floats]

    @classmethod
    def of(cls, p_NC: Floats, y_N: npt.NDArray[np.int64], bootstrap: PatientBootstrap) -> Measured:
        """Measure probabilities [N, C] against labels [N]."""
        return cls(task_metrics(p_NC, y_N), bootstrap.metrics(p_NC, y_N))

    def to_json(self) -> dict[str, Any]:
        """The metrics and, as `ci95`, the interval of each."""
        return {**self.metrics.to_json(), "ci95": {name: interval(values) for name, values in self.resampled.items()}}


def assess(predictions: Predictions, baseline: SizeBaseline, bootstrap: PatientBootstrap) -> dict[str, Any]:
    """The measured part of evaluation.json.

    `auc_above_size` is the network's AUC minus that of size alone, the mean over the tasks of two classes that have both
    (null where there is none); `tasks.<task>.auc_above_size` is that of each task, `auc_above_size_ci95` its interval
    from paired resamples.
    """
    labels = predictions.labels
    network = {task: Measured.of(p, labels[task], bootstrap) for task, p in predictions.probabilities.items()}
    size = {task: Measured.of(p, labels[task], bootstrap) for task, p in baseline.probabilities.items()}
    entries = {t: {**m.to_json(), **_classes(predictions, t), **_above(m, size.get(t))} for t, m in network.items()}
    above = [e["auc_above_size"] for e in entries.values() if len(e["classes"]) == 2 and e["auc_above_size"] is not None]
    return {
        "auc_above_size": float(np.mean(above)) if above else None,
        "mean_auc": {"network": _mean_auc(network), "size_only": _mean_auc(size)},
        "tasks": entries,
        "fused": {task: Measured.of(p, labels[task], bootstrap).to_json() for task, p in predictions.fused.items()},
        "baselines": {"size_only": {task: m.to_json() for task, m in size.items()}},
        "size_only_notes": _notes(baseline),
        "gates": {task: gates.to_json() for task, gates in predictions.gates.items()},
    }


def _mean_auc(measured: Mapping[str, Measured]) -> float | None:
    return mean_auc(m.metrics for m in measured.values())


def _classes(predictions: Predictions, task: str) -> dict[str, Any]:
    counts = confusion(predictions.probabilities[task], predictions.labels[task])
    return {"classes": list(predictions.tasks[task].class_names), "confusion": counts.tolist()}


def _above(network: Measured, size: Measured | None) -> dict[str, Any]:
    ours, theirs = network.metrics.auc, size.metrics.auc if size else None
    if size is None or ours is None or theirs is None:
        return {"size_only_auc": theirs, "auc_above_size": None, "auc_above_size_ci95": None}
    paired = interval(network.resampled["auc"] - size.resampled["auc"])
    return {"size_only_auc": theirs, "auc_above_size": ours - theirs, "auc_above_size_ci95": paired}


def _notes(baseline: SizeBaseline) -> dict[str, Any]:
    return {
        "features": f"log {SIZE} and its square; logistic regression on the labels of the training folds",
        "missing_size_train": baseline.missing_train,
        "missing_size_evaluated": baseline.missing_evaluated,
        "unfit": dict(baseline.unfit),
    }
