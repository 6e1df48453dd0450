"""Planning and cutting without Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_series import node_row, write_cohort, write_nodes, write_series

from mtids_dist.data import TEST_FOLD, PrepareConfig, StoreWriter, crops_of, open_store
from mtids_dist.data.prepare_plan import Plan, Planner, Unit
from mtids_dist.data.prepare_units import MAX_DEATHS, _Deaths, finished_record, process_unit, record_path
from mtids_dist.data.private import Private, open_private
from mtids_dist.dicom import Node, read_nodes, scan
from mtids_dist.errors import InputError

Cohort = tuple[Path, Path]
CONFIG = PrepareConfig(crop=10, folds=3, test_share=0.25)


def _planner(dicom: Path, nodes: Path, private: Private, config: PrepareConfig = CONFIG) -> Planner:
    return Planner(scan(dicom), read_nodes(nodes), dicom, config, private)


def _plan(dicom: Path, nodes: Path, private: Private, config: PrepareConfig = CONFIG) -> Plan:
    return _planner(dicom, nodes, private, config).plan()


def _writer(store: Path) -> StoreWriter:
    writer = StoreWriter(path=store, crop_shape=(10, 10, 10), spacing_mm=1.0)
    writer.begin()
    return writer


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def private(tmp_path: Path) -> Private:
    return open_private(tmp_path / "keyed", None)


def test_units_hold_every_node_once_and_whole_patients(cohort: Cohort, private: Private) -> None:
    plan = _plan(*cohort, private)
    rows = [job.row for unit in plan.units for job in unit.jobs]
    assert sorted(rows) == list(range(2, 50))
    folds = {(job.patient_hash, unit.fold) for unit in plan.units for job in unit.jobs}
    assert len(folds) == 12
    parts = Counter(unit.fold for unit in plan.units)
    assert parts.keys() == {TEST_FOLD, 0, 1, 2}
    assert all(count >= 4 for count in parts.values())


def test_folds_and_order_do_not_depend_on_the_key(cohort: Cohort, private: Private, tmp_path: Path) -> None:
    other = open_private(tmp_path / "other", None)
    plans = [_plan(*cohort, key) for key in (private, private, other)]
    shape = [[(unit.name, [job.row for job in unit.jobs]) for unit in plan.units] for plan in plans]
    assert shape[0] == shape[1] == shape[2]
    ids = [[unit.id for unit in plan.units] for plan in plans]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])


def test_a_unit_changes_its_id_with_what_it_is_made_of(cohort: Cohort, private: Private) -> None:
    planner = _planner(*cohort, private)
    first, second = (
        {unit.id for unit in p.plan().units} for p in (planner, replace(planner, config=CONFIG.model_copy(update={"crop": 11})))
    )
    assert not first & second
    moved = replace(planner.table, nodes=(replace(planner.table.nodes[0], station="9"), *planner.table.nodes[1:]))
    assert len(first - {unit.id for unit in replace(planner, table=moved).plan().units}) >= 1


def test_patients_that_share_a_series_share_a_fold(cohort: Cohort, private: Private) -> None:
    planner = _planner(*cohort, private, CONFIG.model_copy(update={"match_patient": False}))
    nodes = list(planner.table.nodes)
    alias: list[Node] = [replace(node, patient_id=f"alias{i}") if i % 2 else node for i, node in enumerate(nodes)]
    plan = replace(planner, table=replace(planner.table, nodes=tuple(alias))).plan()
    fold_of_series = {(job.series_hash, unit.fold) for unit in plan.units for job in unit.jobs}
    assert len(fold_of_series) == 12
    assert sum(len(unit.jobs) for unit in plan.units) == 48


def _one_series_store(tmp_path: Path, rows: list[dict[str, object]], private: Private) -> tuple[Plan, list[Unit]]:
    nodes = write_nodes(tmp_path / "nodes.csv", rows)
    plan = _plan(tmp_path / "dicom", nodes, private)
    return plan, list(plan.units)


def test_each_node_that_has_no_crop_has_its_reason(tmp_path: Path, private: Private) -> None:
    uid = write_series(tmp_path / "dicom" / "good", "good", patient="A")
    short = write_series(tmp_path / "dicom" / "short", "short", patient="B", slices=1)
    broken = write_series(tmp_path / "dicom" / "broken", "broken", patient="C", slices=20)
    for path in (tmp_path / "dicom" / "broken").iterdir():
        data = bytearray(path.read_bytes())
        at = data.index(b"\x28\x00\x00\x01US\x02\x00\x10\x00")  # BitsAllocated 16 -> 12: pydicom decodes no such thing
        data[at + 8] = 12
        path.write_bytes(data)
    (tmp_path / "dicom" / "notes.txt").write_text("Doe^A was here")
    rows = [
        node_row(uid, "A", 1),
        node_row(uid, "A", 2, x_mm=39, y_mm=39, z_mm=38),  # a corner: 7/8 of the crop lies outside
        node_row(uid, "A", 3, z_mm=500),
        node_row(uid, "A", 4, x_mm="Doe"),
        node_row(uid, "A", 1),
        node_row(short, "B", 1),
        node_row(broken, "C", 1),
        node_row("1.2.3", "D", 1),
        node_row(uid, "Z", 9),
    ]
    plan, units = _one_series_store(tmp_path, rows, private)
    store = tmp_path / "store"
    writer = _writer(store)
    records = [process_unit(unit, writer, "run") for unit in units]
    rejected = [*plan.rejected, *(rejection for record in records for rejection in record.rejected)]
    reasons = {r.row: r.reason for r in rejected if r.kind == "node"}
    assert reasons == {
        3: "mostly_outside",
        4: "outside_volume",
        5: "bad_position",
        6: "duplicate_node",
        7: "series_skipped",
        8: "decode_failed",
        9: "series_not_found",
        10: "patient_mismatch",
    }
    assert next(r.detail for r in rejected if r.row == 7).startswith("too_few_slices")
    files = Counter(r.reason for r in rejected if r.kind == "file")
    assert files == {"not_dicom": 1, "too_few_slices": 1}
    assert sum(record.part.rows for record in records if record.part) == 1
    text = " ".join(record.model_dump_json() for record in records) + " ".join(r.model_dump_json() for r in plan.rejected)
    assert not [secret for secret in ("Doe", uid, str(tmp_path), "notes") if secret in text]


def test_each_row_is_its_node_and_its_crop_lies_on_the_physical_grid(cohort: Cohort, private: Private, tmp_path: Path) -> None:
    writer = _writer(tmp_path / "store")
    parts = [process_unit(unit, writer, "run").part for unit in _plan(*cohort, private).units]
    writer.finish([part for part in parts if part], made_by="test", folds=3, counts={})
    store = open_store(tmp_path / "store")
    names = private.pseudonyms
    nodes = {names.node(node.series_uid, node.node_id): node for node in read_nodes(cohort[1]).nodes}
    k, j, i = np.mgrid[:10, :10, :10] - 4.5
    for batch in store.batches([*store.folds, TEST_FOLD], batch_size=16):
        for voxels, row in zip(crops_of(batch), batch.drop_columns(["crop"]).to_pylist(), strict=True):
            node = nodes.pop(row["node"])
            assert (row["patient"], row["series"]) == (names.patient(node.patient_id), names.series(node.series_uid))
            labels = (row["station"], row["metastasis"], row["short_axis_mm"])
            assert labels == (node.station, node.metastasis, node.short_axis_mm)
            assert row["position_mm"] == pytest.approx(node.position_mm)
            x, y, z = node.position_mm
            np.testing.assert_allclose(voxels, (x + i) + 2 * (y + j) + 3 * (z + k), atol=0.51)
    assert not nodes


def test_the_same_unit_gives_the_same_bytes_and_is_recognised(cohort: Cohort, private: Private, tmp_path: Path) -> None:
    unit = _plan(*cohort, private).units[0]
    records = [process_unit(unit, _writer(tmp_path / name), "run") for name in ("a", "b")]
    assert records[0] == records[1]
    store = tmp_path / "a"
    assert finished_record(store, unit) == records[0]
    assert finished_record(store, replace(unit, id="other")) is None
    (store / unit.name).write_bytes(b"cut short")
    assert finished_record(store, unit) is None
    record_path(store, unit).write_text('{"id": ')
    assert finished_record(store, unit) is None


def test_a_series_in_which_workers_die_is_given_up_in_that_run_only(cohort: Cohort, private: Private, tmp_path: Path) -> None:
    unit = next(unit for unit in _plan(*cohort, private).units if len(unit.series) == 2)
    writer = _writer(tmp_path / "store")
    trying = tmp_path / "store" / ".staging" / f"{unit.name}.trying"
    for _ in range(MAX_DEATHS):
        _Deaths(trying, "this run").enter(unit.jobs[0].series)
    record = process_unit(unit, writer, "this run")
    assert {r.reason for r in record.rejected} == {"worker_died"}
    assert {r.row for r in record.rejected} == {job.row for job in unit.jobs if job.series == unit.jobs[0].series}
    for _ in range(MAX_DEATHS):
        _Deaths(trying, "this run").enter(unit.jobs[0].series)
    assert not process_unit(unit, writer, "the next run").rejected
    assert not trying.exists()


def test_private_things_stay_private(tmp_path: Path) -> None:
    key = tmp_path / "key"
    first = open_private(tmp_path / "a", key)
    assert open_private(tmp_path / "b", key).pseudonyms.patient("x") == first.pseudonyms.patient("x")
    assert open_private(tmp_path / "a", None).pseudonyms == first.pseudonyms
    assert open_private(tmp_path / "c", None).pseudonyms != first.pseudonyms
    with pytest.raises(InputError, match="begun with another key"):
        open_private(tmp_path / "c", key)
    first.write_lookup([])
    folder = tmp_path / "a" / "private"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert pq.read_table(folder / "lookup.parquet").column_names == ["kind", "hash", "identifier"]
