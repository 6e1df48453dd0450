"""One batch without a stream: for a look at what training would be fed, before Ray is there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mtids_dist.data.augment import augment
from mtids_dist.data.batch import Batch, columns_of, encode_labels, make_batch
from mtids_dist.data.checks import refuse_missing_columns
from mtids_dist.data.config import DataConfig
from mtids_dist.data.schema import CROP, CropShape, crops_of
from mtids_dist.data.store import Split, Store
from mtids_dist.tasks import Task


def sample_batch(store: Store, config: DataConfig, tasks: Mapping[str, Task], *, rows: int, seed: int) -> Batch:
    """Read the first `rows` rows of the training folds in store order, normalised and augmented as in training.

    :raises InputError: no such fold, an empty one, or a column that the store does not have.
    """
    refuse_missing_columns(store, tasks)
    folds = store.folds_of(Split.TRAIN, config.fold)
    first = next(store.batches(folds, batch_size=rows, columns=[CROP, *columns_of(tasks)]))
    return _augmented(make_batch(crops_of(first), encode_labels(first, tasks), tasks, config.window), config, seed)


def random_batch(crop_shape: CropShape, config: DataConfig, tasks: Mapping[str, Task], *, rows: int, seed: int) -> Batch:
    """Draw `rows` crops from the window's values and a class of every task for each, where there is no store yet."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(np.int16)
    low, high = (int(min(max(edge, limits.min), limits.max)) for edge in config.window)
    crops = rng.integers(low, high, (rows, *crop_shape), dtype=np.int16, endpoint=True)
    labels = np.stack([rng.integers(0, task.num_classes, rows) for task in tasks.values()], axis=1)
    return _augmented(make_batch(crops, labels, tasks, config.window), config, seed)


def _augmented(batch: Batch, config: DataConfig, seed: int) -> Batch:
    return Batch(augment(batch.crops, config.augment, torch.Generator().manual_seed(seed)), batch.labels)
