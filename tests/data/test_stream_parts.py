from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_store import PARTS, ROWS, ROWS_A_PART, SHAPE, TASKS, write_small_store

from mtids_dist.data import DataConfig, Store, check_store, label_counts, normalise, steps_per_epoch, validation_batches
from mtids_dist.data.prefetch import Prefetched
from mtids_dist.data.shuffle import shuffled
from mtids_dist.errors import InputError
from mtids_dist.tasks import MTIDS_TASKS, Task


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("data") / "store")


def test_normalise_maps_the_window_and_clips() -> None:
    crops = np.array([-1024, -200, 50, 300, 3000, 175], np.int16).reshape(1, 1, 2, 3)
    got = normalise(crops, (-200, 300))
    assert got.shape == (1, 1, 1, 2, 3)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.ravel(), torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0, 0.5]))


@given(count=st.integers(0, 60), capacity=st.integers(1, 70), seed=st.integers(0, 99))
def test_shuffling_keeps_every_row_and_holds_no_more_than_its_capacity(count: int, capacity: int, seed: int) -> None:
    taken = 0

    def rows() -> Iterator[int]:
        nonlocal taken
        for row in range(count):
            taken += 1
            yield row

    order = []
    for row in shuffled(rows(), capacity, np.random.default_rng(seed)):
        order.append(row)
        assert taken - len(order) <= capacity
    assert sorted(order) == list(range(count))
    assert order == list(shuffled(range(count), capacity, np.random.default_rng(seed)))


def test_shuffling_moves_rows_far() -> None:
    order = np.array(list(shuffled(range(1000), 100, np.random.default_rng(0))))
    place = np.argsort(order)
    assert 70 < (place - np.arange(1000))[:500].std() < 140, "how long a row stays is geometric with mean 100"
    assert (np.diff(order) == 1).mean() < 0.05
    assert not np.array_equal(order, list(shuffled(range(1000), 100, np.random.default_rng(1))))


def test_items_are_made_before_anybody_asks_for_them() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield from range(4)
        made.set()

    with Prefetched(items(), depth=4) as prefetched:
        assert made.wait(timeout=60)
        assert list(prefetched) == [0, 1, 2, 3]


def test_the_wait_for_an_item_is_measured() -> None:
    asked = threading.Event()

    def items() -> Iterator[int]:
        assert asked.wait(timeout=60)
        yield 1

    with Prefetched(items(), depth=1) as prefetched:
        assert prefetched.wait_s == 0
        threading.Timer(0.05, asked.set).start()
        assert next(prefetched) == 1
        assert prefetched.wait_s > 0


def test_prefetching_raises_what_went_wrong_and_ends() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise InputError("bad part file")

    items = Prefetched(broken(), depth=2)
    assert next(items) == 1
    with pytest.raises(InputError, match="bad part file"):
        next(items)
    with pytest.raises(StopIteration):
        next(items)


def test_prefetching_that_is_left_early_stops_its_thread_and_closes_its_source() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    with Prefetched(endless(), depth=2) as items:
        next(items)
    assert closed.is_set()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_sees_every_row_once_over_all_ranks(store: Store, world_size: int) -> None:
    config = DataConfig(window=(0, ROWS))
    seen: dict[int, float] = {}
    for rank in range(world_size):
        for batch, index in validation_batches(store, [0, 2], config, TASKS, rank=rank, world_size=world_size, batch_size=4):
            assert batch.crops.shape == (len(index), 1, *SHAPE)
            rows = batch.labels["row"]
            torch.testing.assert_close(batch.crops[:, 0, -1, -1, -1], 2 * rows / ROWS - 1)
            missing = rows % 3 == 0
            assert torch.equal(batch.labels["side"], torch.where(missing, -1, rows % 2))
            assert not seen.keys() & set(index)
            seen |= dict(zip(index.tolist(), rows.tolist(), strict=True))
    first, second = PARTS[0] * ROWS_A_PART, PARTS[2] * ROWS_A_PART
    assert [seen[index] for index in range(first + second)] == [*range(first), *range(ROWS - second, ROWS)]


def test_label_counts_leave_missing_out(store: Store) -> None:
    counts = label_counts(store, [0], TASKS)
    assert counts["side"].tolist() == [9, 9]
    assert counts["row"].sum() == PARTS[0] * ROWS_A_PART
    assert len(counts["row"]) == ROWS


def test_every_rank_gets_the_same_number_of_full_batches() -> None:
    assert steps_per_epoch(101, 2, 8) == 6
    assert steps_per_epoch(16, 2, 8) == 1
    with pytest.raises(InputError, match=r"data.batch_size: 2 workers x 8 crops .*; found 8; allowed: up to 7 for 15 rows"):
        steps_per_epoch(15, 2, 8)


def test_a_store_that_does_not_fit_is_refused_in_one_line(store: Store) -> None:
    check_store(store, DataConfig(crop=SHAPE), TASKS, world_size=2)
    with pytest.raises(InputError, match=r"manifest.json crop_shape: .*found 2x4x4; allowed: 48x48x48$"):
        check_store(store, DataConfig(crop=48), TASKS)
    with pytest.raises(InputError, match=r"tasks.m.column: .*did you mean metastasis\?; found metastases; allowed: station, "):
        check_store(store, DataConfig(), {"m": Task(column="metastases", classes="binary")})
    with pytest.raises(InputError, match=r"station: no training row of folds 1, 2 has a label of task region"):
        check_store(store, DataConfig(fold=0), {"region": MTIDS_TASKS["region"]})
    with pytest.raises(InputError, match="more rows than the training folds hold"):
        check_store(store, DataConfig(batch_size=32), TASKS, world_size=2)


def test_a_window_that_does_not_rise_is_refused() -> None:
    with pytest.raises(ValueError, match="window must rise"):
        DataConfig(window=(300, -200))


def test_checks_need_no_ray(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; from mtids_dist.data import check_store, normalise; print('ray' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.strip() == "False"
