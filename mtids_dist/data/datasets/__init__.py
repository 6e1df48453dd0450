"""Public data sets as stores, by name: what `mtids-dist dataset NAME STORE` makes."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from mtids_dist.data.datasets.lidc_readings import LIDC_TASKS, lidc_readings
from mtids_dist.data.manifest import Manifest
from mtids_dist.data.progress import Progress, no_progress
from mtids_dist.errors import InputError

__all__ = ["DATASETS", "LIDC_TASKS", "lidc_readings", "make_dataset"]


class MakeStore(Protocol):
    """Makes the store of one data set in a new folder; raises InputError where its source is not installed."""

    def __call__(self, store: Path, *, seed: int = 0, progress: Progress = no_progress) -> Manifest:
        """Write the store and return its manifest; `seed` draws the folds."""


DATASETS: Mapping[str, MakeStore] = MappingProxyType({"lidc-readings": lidc_readings})


def make_dataset(name: str, store: str | Path, *, seed: int = 0, progress: Progress = no_progress) -> Manifest:
    """Make the store of the public data set `name`; InputError where there is none of that name."""
    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise InputError(f"no such data set{hint}", where="dataset", found=name, allowed=", ".join(DATASETS))
    return DATASETS[name](Path(store), seed=seed, progress=progress)
