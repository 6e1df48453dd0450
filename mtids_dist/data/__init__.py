"""The Parquet store: its schema, making it (prepare), reading it (stream), augmentation, public data sets."""

from __future__ import annotations

from mtids_dist.data.manifest import Manifest, PartFile
from mtids_dist.data.schema import CROP, ROW_INDEX, TEST_FOLD, crop_column, crops_of
from mtids_dist.data.store import Split, Store, open_store
from mtids_dist.data.writer import StoreWriter

__all__ = [
    "CROP",
    "ROW_INDEX",
    "TEST_FOLD",
    "Manifest",
    "PartFile",
    "Split",
    "Store",
    "StoreWriter",
    "crop_column",
    "crops_of",
    "open_store",
]
