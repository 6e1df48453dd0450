"""Folds of whole patients and a locked test list, alike in stations, metastases and size as far as the patients allow.

scikit-learn's StratifiedGroupKFold wants equal folds, one label a row, and as many rows of some class as there are folds; a
test list of another share, two labels with missing values and cohorts of three patients need this instead. The greedy rule
is that of Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011: the patients that
hold most of something rare go first, each to where what it brings is missed most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtids_dist.data.schema import TEST_FOLD

Array = npt.NDArray[np.float64]
Strata = Sequence[Sequence[str]]
"""What each node of a patient counts towards, e.g. `(("station=7", "metastasis=1"), ("station=4R",))`."""


def assign_folds(patients: Mapping[str, Strata], *, folds: int, test_share: float, seed: int) -> dict[str, int]:
    """The fold of each patient: 0 .. folds - 1, or `TEST_FOLD` for about `test_share` of the whole.

    Depends on the patients' names, their nodes' strata, and the seed; not on any order and not on the pseudonym key.
    No fold stays empty while there are patients enough.
    """
    shares = dict.fromkeys(range(folds), (1 - test_share) / folds) | ({TEST_FOLD: test_share} if test_share else {})
    bins = list(shares)
    weights = np.array(list(shares.values()))
    fraction, names = _fractions(patients, seed)
    filled = np.zeros((len(bins), fraction.shape[1]))
    taken = np.zeros(len(bins), dtype=bool)
    chosen = {}
    for place, (name, part) in enumerate(zip(names, fraction, strict=True)):
        misfit = _added_misfit(filled, part, weights)
        if len(names) - place <= (~taken).sum():
            misfit = np.where(taken, np.inf, misfit)
        best = int(misfit.argmin())
        filled[best] += part
        taken[best] = True
        chosen[name] = bins[best]
    return chosen


def _added_misfit(
    filled: npt.NDArray[np.float64], part: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """How much each bin's chi-square distance from its share grows when `part` [strata] is added to it: [bins]."""
    share = weights[:, None]
    grown: Array = (((filled + part - share) ** 2 - (filled - share) ** 2) / share).sum(axis=1)
    return grown.round(12)  # equal but for rounding must tie, whatever the machine


def _fractions(patients: Mapping[str, Strata], seed: int) -> tuple[Array, list[str]]:
    """The share of each stratum that each patient holds, [patients, strata], and the patients in the order to place them."""
    strata = sorted({stratum for nodes in patients.values() for node in nodes for stratum in node})
    column = {stratum: i for i, stratum in enumerate(strata)}
    names = sorted(patients, key=lambda name: seeded_order(name, seed))
    counts = np.zeros((len(names), len(strata) + 2))
    for row, name in enumerate(names):
        counts[row, -2:] = 1, len(patients[name])  # patients and nodes are strata too
        for node in patients[name]:
            for stratum in node:
                counts[row, column[stratum]] += 1
    fraction = counts / np.maximum(counts.sum(axis=0), 1)
    order = np.argsort(-fraction.max(axis=1, initial=0.0), kind="stable")
    return fraction[order], [names[i] for i in order]


def seeded_order(name: str, seed: int) -> str:
    """A sort key that looks random, differs with the seed and is the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
