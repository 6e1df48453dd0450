from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from small_store import ROWS, SHAPE, TASKS, write_small_store

from mtids_dist.data import DataConfig, Store, steps_per_epoch, train_batches, train_dataset
from mtids_dist.errors import WorkFailedError

pytestmark = pytest.mark.slow

WORLD_SIZE = 2
FOLDS = (0, 1, 2)
CONFIG = DataConfig(batch_size=5, window=(0, ROWS), shuffle_rows=8)
STEPS = steps_per_epoch(ROWS, WORLD_SIZE, CONFIG.batch_size)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    yield write_small_store(tmp_path_factory.mktemp("data") / "store")
    ray.shutdown()


def _ranks(store: Store, seed: int) -> list[ray.data.DataIterator]:
    return train_dataset(store, FOLDS, TASKS, seed=seed).streaming_split(WORLD_SIZE, equal=True)


def _epoch(
    ranks: list[ray.data.DataIterator], epoch: int, *, steps: int = STEPS, leave_after: int | None = None
) -> list[list[int]]:
    """The rows that each rank got, in order; each rank in a thread of its own, since an epoch waits for all of them."""

    def one(rank: int) -> list[int]:
        rows: list[int] = []
        seed = epoch * WORLD_SIZE + rank
        with train_batches(ranks[rank], CONFIG, TASKS, crop_shape=SHAPE, steps=steps, seed=seed) as batches:
            for step, batch in enumerate(batches):
                assert batch.crops.shape == (CONFIG.batch_size, 1, *SHAPE)
                labels = batch.labels["row"].tolist()
                assert [round((value + 1) / 2 * ROWS) for value in batch.crops[:, 0, 0, 0, 0].tolist()] == labels
                rows += labels
                if step + 1 == leave_after:
                    break
        return rows

    with ThreadPoolExecutor(WORLD_SIZE) as threads:
        return list(threads.map(one, range(WORLD_SIZE)))


def test_ranks_get_equal_full_batches_of_different_rows_in_an_order_that_the_seed_fixes(store: Store) -> None:
    ranks = _ranks(store, seed=3)
    epochs = [_epoch(ranks, epoch) for epoch in range(2)]
    for first, second in epochs:
        assert len(first) == len(second) == STEPS * CONFIG.batch_size
        assert len(set(first + second)) == len(first + second)
    again_with_rank_0 = {*epochs[0][0]} & {*epochs[1][0]}
    assert len(again_with_rank_0) < len(epochs[0][0]) - 3, "files come in another order, so that ranks get other rows"
    again = _ranks(store, seed=3)
    assert [_epoch(again, epoch) for epoch in range(2)] == epochs
    assert _epoch(_ranks(store, seed=4), 0) != epochs[0]


def test_leaving_early_does_not_disturb_the_next_epoch(store: Store) -> None:
    ranks = _ranks(store, seed=0)
    assert [len(rows) for rows in _epoch(ranks, 0, leave_after=1)] == [CONFIG.batch_size] * WORLD_SIZE
    assert [len(rows) for rows in _epoch(ranks, 1)] == [STEPS * CONFIG.batch_size] * WORLD_SIZE


def test_a_stream_that_ends_too_soon_is_an_error_not_a_short_batch(store: Store) -> None:
    with pytest.raises(WorkFailedError, match=rf"ended after {ROWS // WORLD_SIZE} of {(STEPS + 1) * CONFIG.batch_size} rows"):
        _epoch(_ranks(store, seed=0), 0, steps=STEPS + 1)


def test_the_callers_ray_data_settings_stay_as_they_are(store: Store) -> None:
    context = ray.data.DataContext.get_current()
    before = context.use_datasource_v2, context.enable_progress_bars, context.execution_options.preserve_order
    train_dataset(store, FOLDS, TASKS, seed=0)
    context = ray.data.DataContext.get_current()
    assert (context.use_datasource_v2, context.enable_progress_bars, context.execution_options.preserve_order) == before
