"""Streaming training batches through Ray Data, and reading validation batches without it.

How a rank's batches come about: the store's part files in shuffled order -> Ray Data splits their rows evenly over the
ranks -> a shuffle buffer per rank -> `steps` full batches, the same number on every rank.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice

import numpy as np
import numpy.typing as npt
import ray.data
import torch
from ray.data import DataContext, ExecutionOptions, FileShuffleConfig

from mtids_dist.data.augment import augment
from mtids_dist.data.batch import Batch, columns_of, encode_labels, make_batch
from mtids_dist.data.checks import refuse_missing_columns
from mtids_dist.data.config import DataConfig
from mtids_dist.data.prefetch import Prefetched
from mtids_dist.data.schema import CROP, ROW_INDEX, CropShape, crops_of
from mtids_dist.data.shuffle import shuffled
from mtids_dist.data.store import Store
from mtids_dist.errors import WorkFailedError
from mtids_dist.tasks import Task

_READ_TASK_BYTES = 32 << 20
_MIN_READ_TASKS = 2

Row = tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]


def train_dataset(store: Store, folds: Iterable[int], tasks: Mapping[str, Task], *, seed: int) -> ray.data.Dataset:
    """The crops and label columns of these folds, part files in an order drawn anew for each execution (epoch).

    Give it to `TorchTrainer(datasets={"train": ...}, dataset_config=ray.train.DataConfig(execution_options=ingest_options()))`.
    The order follows from `seed` and the number of the execution, which counts from 0 again when a run resumes: let
    `seed` depend on the first epoch. Needs a running Ray. InputError where the store lacks a task's column.
    """
    refuse_missing_columns(store, tasks)
    files = store.files(folds)
    size = store.count(folds) * 2 * int(np.prod(store.crop_shape))
    with DataContext.current(_quick_start(DataContext.get_current().copy())):
        return ray.data.read_parquet(
            [str(path) for path in files],
            columns=[CROP, *columns_of(tasks)],
            partitioning=None,
            shuffle=FileShuffleConfig(seed, reseed_after_execution=True),
            override_num_blocks=min(len(files), max(_MIN_READ_TASKS, size // _READ_TASK_BYTES)),
        )


def _quick_start(context: DataContext) -> DataContext:
    """Reader V2 starts 32 actors for Parquet footers in every execution: 6-20 s an epoch on 2 cores; V1 takes 0.4 s."""
    context.use_datasource_v2 = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options = ingest_options()
    return context


def ingest_options() -> ExecutionOptions:
    """How Ray Data is to execute `train_dataset`: in order, so that the same seed gives each rank the same rows.

    Ray Train puts its own options in place of the dataset's, so they are needed there too (see `train_dataset`).
    """
    return ExecutionOptions(preserve_order=True)


def train_batches(
    iterator: ray.data.DataIterator,
    config: DataConfig,
    tasks: Mapping[str, Task],
    *,
    crop_shape: CropShape,
    steps: int,
    seed: int,
    pin: bool = False,
) -> Prefetched[Batch]:
    """One epoch of this rank: exactly `steps` batches of `config.batch_size` crops, normalised and augmented.

    Reading starts at once, in a thread: call it before validation to hide the start of an execution, on every rank (the
    first block waits for all of them). `.wait_s` is how long training waited. `seed` has to differ by epoch and rank. `pin`:
    leave batches in page-locked memory.
    WorkFailedError where the stream ends before the last step.
    """
    batches = _epoch(iterator, config, tasks, crop_shape, steps, seed)
    return Prefetched((batch.pinned() for batch in batches) if pin else batches, depth=config.prefetch_batches)


def _epoch(
    iterator: ray.data.DataIterator, config: DataConfig, tasks: Mapping[str, Task], crop_shape: CropShape, steps: int, seed: int
) -> Generator[Batch, None, None]:
    generator = torch.Generator().manual_seed(seed)
    with closing(_rows(iterator, tasks, crop_shape)) as rows:
        stream = shuffled(rows, config.shuffle_rows, np.random.default_rng(seed))
        for step in range(steps):
            drawn = list(islice(stream, config.batch_size))
            if len(drawn) < config.batch_size:
                found = step * config.batch_size + len(drawn)
                raise WorkFailedError(f"the stream of training crops ended after {found} of {steps * config.batch_size} rows")
            crops, labels = (np.stack(column) for column in zip(*drawn, strict=True))
            batch = make_batch(crops, labels, tasks, config.window)
            yield Batch(augment(batch.crops, config.augment, generator), batch.labels)


def _rows(iterator: ray.data.DataIterator, tasks: Mapping[str, Task], crop_shape: CropShape) -> Generator[Row, None, None]:
    """Crops with their class indices. Each crop is copied: a view held back for shuffling would pin its whole block."""
    for block in iterator.iter_batches(batch_size=None, batch_format="pyarrow"):
        crops = crops_of(block)
        if crops.shape[1:] != crop_shape:
            raise WorkFailedError(f"crops of another size in the stream: found {crops.shape[1:]}, expected {crop_shape}")
        for crop, labels in zip(crops, encode_labels(block, tasks), strict=True):
            yield crop.copy(), labels


def validation_batches(
    store: Store,
    folds: Iterable[int],
    config: DataConfig,
    tasks: Mapping[str, Task],
    *,
    rank: int,
    world_size: int,
    batch_size: int,
) -> Iterator[tuple[Batch, npt.NDArray[np.int64]]]:
    """This rank's rows (rank, rank + world_size, ...) of the folds in store order, normalised, never augmented or dropped.

    With each batch come its row numbers int64 [B] in that order, so that gathered results can be put back. The last batch
    may be short, and ranks may have different numbers of batches. Plain pyarrow: no Ray. InputError as `train_dataset`.
    """
    refuse_missing_columns(store, tasks)
    columns = [CROP, *columns_of(tasks)]
    for rows in store.batches(folds, batch_size=batch_size, start=rank, step=world_size, columns=columns):
        batch = make_batch(crops_of(rows), encode_labels(rows, tasks), tasks, config.window)
        yield batch, rows.column(ROW_INDEX).to_numpy()
