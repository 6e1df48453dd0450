from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mtids_dist.data import ROW_INDEX, TEST_FOLD, Split, Store, StoreWriter, crop_column, crops_of, open_store
from mtids_dist.errors import InputError

SHAPE = (3, 5, 4)


def _rows(first: int, count: int, patient: str) -> pa.Table:
    crops = np.stack([np.full(SHAPE, first + i, np.int16) + np.arange(60, dtype=np.int16).reshape(SHAPE) for i in range(count)])
    return pa.table(
        {
            "crop": crop_column(crops),
            "patient": [patient] * count,
            "series": ["s"] * count,
            "node": [f"n{first + i}" for i in range(count)],
            "station": ["4R"] + [None] * (count - 1),
            "malignancy": pa.array(range(first, first + count), pa.int8()),
        }
    )


def _writer(path: Path) -> StoreWriter:
    return StoreWriter(path=path, crop_shape=SHAPE, spacing_mm=1.0, labels={"malignancy": pa.int8()}, row_group_rows=4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    writer = _writer(tmp_path / "store")
    writer.begin()
    parts = [
        writer.write_part(1, 0, _rows(30, 5, "d")),
        writer.write_part(0, 1, _rows(11, 9, "b")),
        writer.write_part(0, 0, _rows(0, 11, "a")),
        writer.write_part(TEST_FOLD, 0, _rows(50, 2, "e")),
    ]
    writer.finish(parts, made_by="test", folds=3, counts={"rows": 27})
    return open_store(tmp_path / "store")


def test_crops_and_labels_come_back_in_store_order(store: Store) -> None:
    labels = store.labels([0, 1])
    assert labels.column("malignancy").to_pylist() == [*range(20), *range(30, 35)]
    assert labels.column("fold").to_pylist() == [0] * 20 + [1] * 5
    assert "crop" not in labels.column_names
    assert labels.column("metastasis").null_count == 25
    assert store.count([0, 1]) == 25
    crops = np.concatenate([crops_of(batch) for batch in store.batches([0, 1], batch_size=7)])
    np.testing.assert_array_equal(crops[:, 0, 0, 0], labels.column("malignancy").to_numpy())
    np.testing.assert_array_equal(crops[0].ravel(), np.arange(60))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_strided_batches_hold_every_row_once(store: Store, world_size: int, batch_size: int) -> None:
    seen: dict[int, int] = {}
    for rank in range(world_size):
        batches = list(store.batches([0, 1], batch_size=batch_size, start=rank, step=world_size, columns=["malignancy"]))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        for batch in batches:
            index = batch.column(ROW_INDEX).to_pylist()
            assert not seen.keys() & set(index)
            assert all(i % world_size == rank for i in index)
            seen.update(zip(index, batch.column("malignancy").to_pylist(), strict=True))
    assert [seen[i] for i in range(25)] == store.labels([0, 1]).column("malignancy").to_pylist()
    assert len(seen) == 25


def test_strided_batches_carry_the_crops_of_their_rows(store: Store) -> None:
    for batch in store.batches([0, 1], batch_size=3, start=1, step=2):
        np.testing.assert_array_equal(crops_of(batch)[:, 0, 0, 0], batch.column("malignancy").to_numpy())


def test_crops_of_copies_nothing(store: Store) -> None:
    (batch,) = store.batches([TEST_FOLD], batch_size=8)
    buffer = batch.column("crop").storage.flatten().buffers()[1]
    assert crops_of(batch).ctypes.data == buffer.address
    np.testing.assert_array_equal(crops_of(batch.slice(1))[:, 0, 0, 0], [51])
    doubled = pa.concat_tables([pa.Table.from_batches([batch])] * 2)
    np.testing.assert_array_equal(crops_of(doubled)[:, 0, 0, 0], [50, 51, 50, 51])


def test_splits_are_disjoint_and_whole(store: Store) -> None:
    assert store.folds_of(Split.TRAIN, 1) == (0, 2)
    assert store.folds_of(Split.VALIDATION, 1) == (1,)
    assert store.folds_of(Split.TEST, 1) == (TEST_FOLD,)
    assert store.manifest.splits["test"].patients == 1
    assert store.manifest.test_patients == ("e",)
    with pytest.raises(InputError, match="no such fold; found 3; allowed: 0 to 2"):
        store.folds_of(Split.TRAIN, 3)
    with pytest.raises(InputError, match=r"no rows for validation with fold 2 held out; filled folds: 0, 1, test"):
        store.folds_of(Split.VALIDATION, 2)


def test_a_patient_in_two_folds_is_never_written(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "store")
    writer.begin()
    parts = [writer.write_part(0, 0, _rows(0, 2, "a")), writer.write_part(1, 0, _rows(2, 2, "a"))]
    with pytest.raises(ValueError, match="one fold"):
        writer.finish(parts, made_by="test", folds=2, counts={})


def test_any_parquet_reader_sees_tensors(store: Store) -> None:
    column = pq.read_table(store.files([0])[0]).schema.field("crop").type
    assert column == pa.fixed_shape_tensor(pa.int16(), SHAPE)
    assert pq.ParquetFile(store.files([0])[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_an_unfinished_store_says_how_to_go_on(tmp_path: Path) -> None:
    writer = _writer(tmp_path / "store")
    writer.begin()
    writer.write_part(0, 0, _rows(0, 2, "a"))
    with pytest.raises(InputError, match="unfinished; the `mtids-dist` command that began it goes on"):
        open_store(tmp_path / "store")
    stray = writer.write_part(0, "old", _rows(0, 2, "a"))
    writer.begin()
    writer.finish([writer.write_part(0, 0, _rows(0, 2, "a"))], made_by="test", folds=2, counts={})
    assert not (tmp_path / "store" / stray.name).exists()
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["manifest.json", "part-0-0000.parquet"]


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path, store: Store) -> None:
    with pytest.raises(InputError, match="no such store"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no store: it has no manifest\.json"):
        open_store(tmp_path)
    with pytest.raises(InputError, match="not empty and holds no store"):
        _writer(tmp_path).begin()
    with pytest.raises(InputError, match="finished store already"):
        _writer(store.path).begin()


def test_damage_is_found(store: Store) -> None:
    store.verify()
    part = store.files([0])[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(InputError, match=r"part-0-0000\.parquet: contents differ"):
        store.verify()
    part.write_bytes(data[:-1])
    with pytest.raises(InputError, match=r"not what manifest\.json says"):
        open_store(store.path)
    (store.path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(InputError, match=r"manifest\.json format: not a manifest that this version reads"):
        open_store(store.path)


def test_a_damaged_part_is_named_when_it_is_read(store: Store) -> None:
    part = store.files([0])[0]
    data = bytearray(part.read_bytes())
    middle = slice(len(data) // 4, 3 * len(data) // 4)
    data[middle] = bytes(byte ^ 0xFF for byte in data[middle])
    part.write_bytes(data)  # of the same size, so that opening the store sees nothing
    with pytest.raises(InputError, match=r"part-0-0000\.parquet: a part file of the store is damaged; found ") as told:
        list(open_store(store.path).batches([0], batch_size=4))
    assert len(str(told.value).splitlines()) == 1


def test_open_store_needs_no_ray() -> None:
    code = "import sys, mtids_dist.data as d; d.open_store; print({'ray', 'torch', 'pydicom', 'matplotlib'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
