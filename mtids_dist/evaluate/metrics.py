"""How good one task's probabilities are: accuracy, balanced accuracy and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score

from mtids_dist.errors import WorkFailedError
from mtids_dist.tasks import MISSING


@dataclass(frozen=True)
class TaskMetrics:
    """The metrics of one task over the `n` rows whose label is known; None where a metric is undefined."""

    n: int
    accuracy: float | None
    balanced_accuracy: float | None
    """mean recall over the classes present among the labels"""
    auc: float | None
    """two classes: that of class 1; more: macro one-vs-rest over the classes present"""

    def to_json(self) -> dict[str, int | float | None]:
        """The fields by name, as in evaluation.json."""
        return asdict(self)


def known_rows(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Probabilities [n, C] and labels [n] of the rows whose label is known.

    ValueError where the shapes do not belong together; WorkFailedError where a probability is NaN or infinite.
    """
    p_NC, y_N = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if p_NC.ndim != 2 or y_N.shape != p_NC.shape[:1]:
        raise ValueError(f"probabilities [N, C] must go with labels [N], found {p_NC.shape} and {y_N.shape}")
    if y_N.max(initial=MISSING) >= p_NC.shape[1]:
        raise ValueError(f"labels must be below the number of classes, {p_NC.shape[1]}, found {y_N.max()}")
    if not np.isfinite(p_NC).all():
        raise WorkFailedError("the network's probabilities are not finite: training has diverged")
    known = y_N != MISSING
    return p_NC[known], y_N[known]


def scored_classes(labels: npt.NDArray[np.int64], num_classes: int) -> list[int]:
    """The classes whose one-vs-rest AUC counts: class 1 of two; of more, each with both positives and negatives."""
    present = np.unique(labels)
    if len(present) < 2:
        return []
    return [1] if num_classes == 2 else [int(c) for c in present]


def task_metrics(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> TaskMetrics:
    """Metrics of probabilities [N, C] against labels [N]; rows labelled -1 are left out, ties in argmax go to the lower class."""
    p_NC, y_N = known_rows(probabilities, labels)
    if not len(y_N):
        return TaskMetrics(0, None, None, None)
    predicted = p_NC.argmax(1)
    recall = recall_score(y_N, predicted, labels=np.unique(y_N), average="macro", zero_division=0)
    aucs = [roc_auc_score(y_N == c, p_NC[:, c]) for c in scored_classes(y_N, p_NC.shape[1])]
    return TaskMetrics(len(y_N), float(np.mean(predicted == y_N)), float(recall), float(np.mean(aucs)) if aucs else None)


def confusion(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Counts [C, C] of true class (row) against predicted class (column)."""
    p_NC, y_N = known_rows(probabilities, labels)
    classes = p_NC.shape[1]
    if not len(y_N):
        return np.zeros((classes, classes), np.int64)
    counts: npt.NDArray[np.int64] = confusion_matrix(y_N, p_NC.argmax(1), labels=np.arange(classes))
    return counts


def mean_auc(metrics: Iterable[TaskMetrics]) -> float | None:
    """The mean of the AUCs that are defined; None if none is. What the best checkpoint can be chosen by."""
    aucs = [m.auc for m in metrics if m.auc is not None]
    return float(np.mean(aucs)) if aucs else None
