"""The Parquet store: its schema, making it (prepare), reading it (stream), augmentation, public data sets.

Opening a store needs pyarrow alone; what needs torch or Ray is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtids_dist.data.config import AugmentConfig, DataConfig
from mtids_dist.data.manifest import Manifest, PartFile
from mtids_dist.data.prepare_config import PrepareConfig, PrepareSummary
from mtids_dist.data.progress import CropCounts, Progress, no_progress
from mtids_dist.data.schema import CROP, ROW_INDEX, TEST_FOLD, crop_column, crops_of
from mtids_dist.data.store import Split, Store, open_store
from mtids_dist.data.writer import StoreWriter

if TYPE_CHECKING:
    from mtids_dist.data.batch import Batch, normalise
    from mtids_dist.data.checks import check_store, label_counts, steps_per_epoch
    from mtids_dist.data.datasets import DATASETS, LIDC_TASKS, make_dataset
    from mtids_dist.data.montage import draw_montage
    from mtids_dist.data.preparation import prepare
    from mtids_dist.data.sample import random_batch, sample_batch
    from mtids_dist.data.stream import ingest_options, train_batches, train_dataset, validation_batches
    from mtids_dist.data.summary import StoreSummary, summarise

_LAZY = {
    "DATASETS": "datasets",
    "LIDC_TASKS": "datasets",
    "Batch": "batch",
    "StoreSummary": "summary",
    "check_store": "checks",
    "draw_montage": "montage",
    "ingest_options": "stream",
    "label_counts": "checks",
    "make_dataset": "datasets",
    "normalise": "batch",
    "prepare": "preparation",
    "random_batch": "sample",
    "sample_batch": "sample",
    "steps_per_epoch": "checks",
    "summarise": "summary",
    "train_batches": "stream",
    "train_dataset": "stream",
    "validation_batches": "stream",
}
"""Name -> the module of this room that has it."""

__all__ = [
    "CROP",
    "DATASETS",
    "LIDC_TASKS",
    "ROW_INDEX",
    "TEST_FOLD",
    "AugmentConfig",
    "Batch",
    "CropCounts",
    "DataConfig",
    "Manifest",
    "PartFile",
    "PrepareConfig",
    "PrepareSummary",
    "Progress",
    "Split",
    "Store",
    "StoreSummary",
    "StoreWriter",
    "check_store",
    "crop_column",
    "crops_of",
    "draw_montage",
    "ingest_options",
    "label_counts",
    "make_dataset",
    "no_progress",
    "normalise",
    "open_store",
    "prepare",
    "random_batch",
    "sample_batch",
    "steps_per_epoch",
    "summarise",
    "train_batches",
    "train_dataset",
    "validation_batches",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
