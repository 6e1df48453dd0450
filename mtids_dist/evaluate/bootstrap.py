"""How sure the metrics are: 95 % intervals by resampling whole patients, all resamples worked out at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtids_dist.evaluate.metrics import known_rows, scored_classes
from mtids_dist.tasks import MISSING

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

METRICS = ("accuracy", "balanced_accuracy", "auc")

_BLOCK_VALUES = 4_000_000
"""Resamples are taken in blocks of so many weights, to bound the memory."""


@dataclass(frozen=True)
class PatientBootstrap:
    """`resamples` draws of as many patients as there are, with replacement; a row weighs as often as its patient was drawn.

    Every metric of the same object sees the same draws, so differences between two predictions are paired.
    Shapes: N rows, R resamples, C classes.
    """

    patients: Sequence[str]
    resamples: int = 500
    seed: int = 0

    def weights(self) -> Iterator[Floats]:
        """Row weights, in blocks [some of R, N]; the same at each call."""
        names, patient_of_row = np.unique(np.asarray(self.patients, dtype=object).astype(str), return_inverse=True)
        if len(names) < 2:  # one patient drawn once is every draw: no spread to speak of
            return
        generator = np.random.default_rng(self.seed)
        block = max(1, _BLOCK_VALUES // len(patient_of_row))
        for first in range(0, self.resamples, block):
            rows = min(block, self.resamples - first)
            drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rows)
            yield drawn[:, patient_of_row].astype(float)

    def metrics(self, probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Mapping[str, Floats]:
        """accuracy, balanced_accuracy and auc [R] of probabilities [N, C] against labels [N]; NaN where undefined."""
        p_NC, y_N = known_rows(probabilities, labels)
        known = np.asarray(labels) != MISSING
        correct = (p_NC.argmax(1) == y_N).astype(float)
        blocks = [_metrics(p_NC, y_N, correct, w_RN[:, known]) for w_RN in self.weights()]
        return {key: np.concatenate([b[key] for b in blocks] or [np.empty(0)]) for key in METRICS}


def interval(values: Floats) -> Interval | None:
    """The 2.5th and 97.5th percentiles of the values that are defined; None where fewer than half are."""
    defined = values[np.isfinite(values)]
    if not len(defined) or 2 * len(defined) < len(values):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _metrics(p_NC: Floats, y_N: npt.NDArray[np.int64], correct: Floats, w_RN: Floats) -> dict[str, Floats]:
    recalls = [_ratio(w_RN[:, y_N == c] @ correct[y_N == c], w_RN[:, y_N == c].sum(1)) for c in np.unique(y_N)]
    aucs = [weighted_auc(p_NC[:, c], y_N == c, w_RN) for c in scored_classes(y_N, p_NC.shape[1])]
    return {
        "accuracy": _ratio(w_RN @ correct, w_RN.sum(1)),
        "balanced_accuracy": _mean_defined(recalls, len(w_RN)),
        "auc": _mean_defined(aucs, len(w_RN)),
    }


def weighted_auc(scores: Floats, positive: npt.NDArray[np.bool_], w_RN: Floats) -> Floats:
    """The AUC [R] of scores [N] under each row of weights: the share of (positive, negative) pairs in order, ties half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    w_RN = w_RN[:, order]
    pos_RT = np.add.reduceat(w_RN * positive[order], starts, axis=1)
    neg_RT = np.add.reduceat(w_RN * ~positive[order], starts, axis=1)
    below_RT = np.cumsum(neg_RT, axis=1) - neg_RT / 2
    return _ratio((pos_RT * below_RT).sum(1), pos_RT.sum(1) * neg_RT.sum(1))


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _mean_defined(values: list[Floats], resamples: int) -> Floats:
    if not values:
        return np.full(resamples, np.nan)
    stacked = np.array(values)
    return _ratio(np.nansum(stacked, axis=0), np.isfinite(stacked).sum(0).astype(float))
