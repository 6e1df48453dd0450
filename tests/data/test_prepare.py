"""Prepare as a user calls it: real Ray Data, real DICOM, interrupted and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom.data
import pytest
import ray
import SimpleITK as sitk  # noqa: N813 - its own custom
from small_series import node_row, series_uid, write_cohort, write_nodes, write_series

from mtids_dist.data import TEST_FOLD, PrepareConfig, PrepareSummary, Split, crops_of, open_store, prepare
from mtids_dist.data.on_ray import map_on_ray
from mtids_dist.dicom import read_nodes
from mtids_dist.errors import InputError, WorkFailedError

pytestmark = pytest.mark.slow

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CONFIG = PrepareConfig(crop=10, folds=3, test_share=0.25)
Cohort = tuple[Path, Path]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def undisturbed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    summary = prepare(*cohort, folder / "store", CONFIG.model_copy(update={"key_file": folder / "key"}))
    assert (summary.crops, summary.rejected_nodes, summary.files_used, summary.patients) == (48, 0, 240, 12)
    return folder


def _contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.glob("*.parquet"))}


def _counts_agree(summary: PrepareSummary) -> None:
    assert summary.node_rows == summary.crops + summary.rejected_nodes
    assert summary.files == summary.files_used + summary.files_skipped
    rejected = pq.read_table(summary.store / "rejected.parquet")
    assert rejected.column("kind").to_pylist().count("node") == summary.rejected_nodes
    assert rejected.column("kind").to_pylist().count("file") == summary.files_skipped


def test_a_store_holds_the_cohort_and_no_identifier(undisturbed: Path, cohort: Cohort) -> None:
    store = open_store(undisturbed / "store")
    store.verify()
    assert store.crop_shape == (10, 10, 10)
    rows = sum(store.count(store.folds_of(split, 0)) for split in Split)
    assert rows == sum(len(crops_of(batch)) for batch in store.batches([*store.folds, TEST_FOLD], batch_size=7)) == 48
    shareable = [path for path in store.path.iterdir() if path.is_file()]
    assert not (store.path / ".staging").exists()
    for path in shareable:
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += "".join(str(column) for column in pq.read_table(path).to_pydict().values()).encode()
        for secret in ("SECRET", "Doe", series_uid("SECRET00"), str(cohort[0])):
            assert secret.encode() not in text, f"{secret} in {path.name}"
    lookup = pq.read_table(store.path / "private" / "lookup.parquet").to_pylist()
    patients = {row["hash"]: row["identifier"] for row in lookup if row["kind"] == "patient"}
    assert set(patients.values()) == {f"SECRET{i:02d}" for i in range(12)}
    assert set(store.labels([*store.folds, TEST_FOLD]).column("patient").to_pylist()) == patients.keys()


def test_a_finished_store_is_left_alone(undisturbed: Path, cohort: Cohort) -> None:
    store = undisturbed / "store"
    before = {path: path.stat().st_mtime_ns for path in store.iterdir() if path.is_file()}
    summary = prepare(*cohort, store, CONFIG)
    assert summary.already_done
    assert summary.crops == 48
    assert before == {path: path.stat().st_mtime_ns for path in store.iterdir() if path.is_file()}


def test_other_settings_or_input_are_refused(undisturbed: Path, cohort: Cohort, tmp_path: Path) -> None:
    store, (dicom, nodes) = undisturbed / "store", cohort
    with pytest.raises(InputError, match=r"prepare\.crop: this store was begun with crop 10, name another folder for crop 12"):
        prepare(dicom, nodes, store, CONFIG.model_copy(update={"crop": 12}))
    longer = tmp_path / "nodes.csv"
    longer.write_text(nodes.read_text() + nodes.read_text().splitlines()[-1].replace(",3,", ",77,", 1) + "\n")
    with pytest.raises(InputError, match="the node table is not the one this store was begun with"):
        prepare(dicom, longer, store, CONFIG)
    extra = dicom / "extra"
    extra.write_text("new")
    try:
        with pytest.raises(InputError, match="the DICOM folder is not the one this store was begun with"):
            prepare(dicom, nodes, store, CONFIG)
    finally:
        extra.unlink()


def test_a_relative_path_means_the_callers_folder(tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cohort[0].parent)
    summary = prepare("dicom", "nodes.csv", os.path.relpath(tmp_path / "store"), CONFIG)
    assert (summary.crops, open_store(tmp_path / "store").manifest.counts["crops"]) == (48, 48)


def test_places_that_are_no_place_for_a_store(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(InputError, match="not empty and holds no store"):
        prepare(*cohort, tmp_path / "full", CONFIG)
    with pytest.raises(InputError, match="must not lie inside the DICOM folder"):
        prepare(*cohort, cohort[0] / "store", CONFIG)
    with pytest.raises(InputError, match="a store is a folder, this is a file"):
        prepare(*cohort, tmp_path / "full" / "thesis.doc", CONFIG)
    assert not (cohort[0] / "store").exists()
    with pytest.raises(InputError, match="no such DICOM folder"):
        prepare(tmp_path / "nowhere", cohort[1], tmp_path / "store", CONFIG)
    assert not (tmp_path / "store").exists()


_KILLED_RUN = """
import os, sys
from pathlib import Path
import ray
from mtids_dist.data import PrepareConfig, prepare
if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    dicom, nodes, store, key = sys.argv[1:]
    def progress(done, total, text):
        if text == "cutting crops" and done:
            print(done, flush=True)
            import time; time.sleep(60)
    prepare(dicom, nodes, store, PrepareConfig(crop=10, folds=3, test_share=0.25, key_file=key), progress)
"""


def test_a_run_killed_midway_is_gone_on_with(undisturbed: Path, cohort: Cohort, tmp_path: Path) -> None:
    store, key = tmp_path / "store", undisturbed / "key"
    arguments = [sys.executable, "-c", _KILLED_RUN, *map(str, (*cohort, store, key))]
    run = subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True, start_new_session=True)
    try:
        assert run.stdout is not None
        assert int(run.stdout.readline()) > 0
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    time.sleep(1)
    records = len(list((store / ".staging").glob("part-*.json")))
    assert records > 0
    with pytest.raises(InputError, match="unfinished"):
        open_store(store)
    (store / ".staging" / "part-0-0000.parquet.json").unlink(missing_ok=True)  # as if killed between part and record
    with pytest.raises(InputError, match=r"prepare\.seed: this store was begun with seed 0"):
        prepare(*cohort, store, CONFIG.model_copy(update={"seed": 1}))
    summary = prepare(*cohort, store, CONFIG)
    assert summary.resumed_parts >= records - 1
    assert _contents(store) == _contents(undisturbed / "store")
    assert open_store(store).manifest.parts == open_store(undisturbed / "store").manifest.parts


def _by_simple_itk(uid: str, position_mm: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The same cube by SimpleITK, and which of its voxels lie inside the volume."""
    reader = sitk.ImageSeriesReader()
    folder = next(path for path in (SHARED / "ct").rglob("*") if uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(path)))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    image = sitk.Cast(reader.Execute(), sitk.sitkFloat64)
    origin = [p - 23.5 for p in position_mm]
    grid = [(48, 48, 48), sitk.Transform(), sitk.sitkLinear, origin, (1.0, 1.0, 1.0), (1, 0, 0, 0, 1, 0, 0, 0, 1)]
    cube = sitk.GetArrayFromImage(sitk.Resample(image, *grid, -1024.0))
    lowest = np.array(image.GetOrigin())
    highest = np.array(image.TransformIndexToPhysicalPoint([n - 1 for n in image.GetSize()]))
    z, y, x = np.mgrid[:48, :48, :48]
    points = np.stack([origin[0] + x, origin[1] + y, origin[2] + z], axis=-1)
    inside = (points >= np.minimum(lowest, highest) - 1e-6) & (points <= np.maximum(lowest, highest) + 1e-6)
    return cube, inside.all(axis=-1)


def test_the_three_real_series_become_the_crops_that_simple_itk_makes(tmp_path: Path) -> None:
    if not SHARED.exists():
        pytest.skip("the real series of ../shared are not here")
    table = SHARED / "annotations" / "real_lesions.csv"
    summary = prepare(SHARED / "ct", table, tmp_path / "store")
    _counts_agree(summary)
    assert (summary.crops, summary.rejected_nodes, summary.files_used, summary.patients) == (3, 0, 110, 3)
    store = open_store(tmp_path / "store")
    (batch,) = store.batches([*store.folds, TEST_FOLD], batch_size=8)
    assert batch.column("station").null_count == batch.column("metastasis").null_count == 3
    lookup = pq.read_table(tmp_path / "store" / "private" / "lookup.parquet").to_pylist()
    uid_of = {row["hash"]: row["identifier"] for row in lookup if row["kind"] == "series"}
    position_of = {node.series_uid: list(node.position_mm) for node in read_nodes(table).nodes}
    for place, voxels in enumerate(crops_of(batch)):
        uid = uid_of[batch.column("series")[place].as_py()]
        cube, inside = _by_simple_itk(uid, position_of[uid])
        assert np.abs(voxels - cube)[inside].max() <= 1.0
        assert (voxels[~inside] == -1024).all()
        assert batch.column("outside")[place].as_py() == pytest.approx((~inside).mean(), abs=1e-6)
        assert inside.mean() > 0.5


def test_bad_files_end_as_named_rejections(tmp_path: Path) -> None:
    if not SHARED.exists():
        pytest.skip("the bad inputs of ../shared are not here")
    folder = tmp_path / "dicom"
    folder.mkdir()
    (folder / "bad_inputs").symlink_to(SHARED / "bad_inputs")
    (folder / "pydicom").symlink_to(Path(pydicom.data.__file__).parent / "test_files")
    uid = write_series(folder / "good", "good", patient="A")
    tilted = pydicom.dcmread(next((SHARED / "bad_inputs" / "gantry_tilt").iterdir()), stop_before_pixels=True)
    rows = [node_row(uid, "A", 1), node_row(tilted.SeriesInstanceUID, str(tilted.PatientID), 1)]
    summary = prepare(folder, write_nodes(tmp_path / "nodes.csv", rows), tmp_path / "store", CONFIG)
    _counts_agree(summary)
    assert summary.files == sum(len(names) for _, _, names in os.walk(folder, followlinks=True))
    assert (summary.crops, summary.rejected_nodes) == (1, 1)
    assert summary.files_used >= 20, "the good series"
    rejected = pq.read_table(tmp_path / "store" / "rejected.parquet").to_pylist()
    lookup = pq.read_table(tmp_path / "store" / "private" / "lookup.parquet").to_pylist()
    path_of = {row["hash"]: row["identifier"] for row in lookup if row["kind"] == "file"}
    reasons: dict[str, set[str]] = {}
    for row in rejected:
        if row["kind"] == "file" and path_of[row["item"]].startswith("bad_inputs"):
            reasons.setdefault(path_of[row["item"]].split("/")[1], set()).add(row["reason"])
    assert reasons == {
        "gantry_tilt": {"gantry_tilt"},
        "uneven_slice_increment": {"uneven_spacing"},
        "same_position_not_a_volume": {"duplicate_position"},
        "enhanced_multiframe_ct": {"multi_frame"},
    }
    assert [row["reason"] for row in rejected if row["kind"] == "node"] == ["series_skipped"]
    assert {"not_ct", "not_dicom", "no_pixels"} <= {row["reason"] for row in rejected}


def test_what_a_dead_worker_did_is_done_again(tmp_path: Path) -> None:
    def die_twice(marks: Path) -> int:
        (marks / str(os.getpid())).touch()
        if (count := len(list(marks.iterdir()))) < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    assert list(map_on_ray(die_twice, folders, what="dying", name="dying")) == [3, 3]


def test_a_failure_of_the_work_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(item: int) -> int:
        raise OSError(28, f"No space left for {item}")

    with pytest.raises(WorkFailedError, match=r"^writing failed: .*No space left for 7.*; what is finished is kept") as failure:
        list(map_on_ray(refuse, [7], what="writing", name="writing"))
    assert "\n" not in str(failure.value)
    assert "Traceback" not in "".join(capfd.readouterr())
