"""Metrics with their statistics, and prediction on a store. Knows nothing of training."""

from __future__ import annotations

from mtids_dist.evaluate.baseline import SizeBaseline, size_baseline
from mtids_dist.evaluate.bootstrap import PatientBootstrap, interval
from mtids_dist.evaluate.compare import compare
from mtids_dist.evaluate.evaluation import EVALUATION, PREDICTIONS, Evaluation, evaluate
from mtids_dist.evaluate.fuse import fuse, product_parts
from mtids_dist.evaluate.gates import GateSums
from mtids_dist.evaluate.metrics import TaskMetrics, mean_auc, task_metrics
from mtids_dist.evaluate.predict import Predictions, predict_store

__all__ = [
    "EVALUATION",
    "PREDICTIONS",
    "Evaluation",
    "GateSums",
    "PatientBootstrap",
    "Predictions",
    "SizeBaseline",
    "TaskMetrics",
    "compare",
    "evaluate",
    "fuse",
    "interval",
    "mean_auc",
    "predict_store",
    "product_parts",
    "size_baseline",
    "task_metrics",
]
