"""The cohort on disk: bytes that repeat, valid headers that say synthetic, files that resume, errors in one line."""

from __future__ import annotations

import csv
import hashlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from mtids_dist.dicom.nodes import COLUMNS
from mtids_dist.dicom.phantom import make_phantom, node_rows
from mtids_dist.dicom.phantom_patient import draw_patient
from mtids_dist.dicom.phantom_settings import PhantomConfig
from mtids_dist.errors import InputError

SMALL = PhantomConfig(patients=3, matrix=32, field_of_view_mm=(330, 340), slice_spacing_mm=(7.0, 9.0), missing_metastasis=0.3)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("phantom") / "cohort", config=SMALL).parent


def test_same_seed_same_bytes_whatever_the_workers(cohort: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "again", config=SMALL, workers=1)
    assert digests(tmp_path / "again") == digests(cohort)


def test_another_seed_shares_neither_pixels_nor_uids(cohort: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "other", config=SMALL, seed=1)
    ours, theirs = (set(digests(folder / "dicom").values()) for folder in (cohort, tmp_path / "other"))
    assert not ours & theirs
    assert not uids(cohort) & uids(tmp_path / "other")


def uids(folder: Path) -> set[str]:
    return {row["series_instance_uid"] for row in csv.DictReader((folder / "nodes.csv").open())}


def test_a_patient_does_not_depend_on_the_cohorts_size(cohort: Path, tmp_path: Path) -> None:
    make_phantom(tmp_path / "one", config=SMALL, patients=1)
    all_of_them = digests(cohort / "dicom")
    one = digests(tmp_path / "one" / "dicom")
    assert one
    assert one.items() <= all_of_them.items()


def test_an_interrupted_cohort_is_gone_on_with(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    make_phantom(out, config=SMALL)
    (out / "nodes.csv").unlink()
    last = max((out / "dicom").iterdir())
    last.rename(last.with_name(f".{last.name}.unfinished"))
    done: list[tuple[int, int]] = []
    make_phantom(out, config=SMALL, progress=lambda *state: done.append(state))
    assert digests(out) == digests(cohort)
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_the_node_table_has_every_node_and_some_empty_cells(cohort: Path) -> None:
    rows = list(csv.reader((cohort / "nodes.csv").open()))
    expected = [row for index in range(SMALL.patients) for row in node_rows(SMALL, draw_patient(SMALL, index))]
    assert tuple(rows[0]) == COLUMNS
    assert [tuple(row) for row in rows[1:]] == expected
    assert {row[-1] for row in rows[1:]} == {"", "0", "1"}


TYPE_1 = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "DeidentificationMethod",
    "PixelData",
]
TYPE_2 = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "SeriesNumber",
    "PositionReferenceIndicator",
    "Manufacturer",
    "InstanceNumber",
    "SliceThickness",
    "KVP",
    "AcquisitionNumber",
    "PatientPosition",
]
"""What the CT Image IOD (PS3.3 A.3) asks of such an image: type 1 with a value, type 2 present."""


def test_every_header_says_synthetic_and_holds_what_ct_needs(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    instances: set[str] = set()
    for path in (path for path in (cohort / "dicom").rglob("*") if path.is_file()):
        data = pydicom.dcmread(path)
        assert [name for name in TYPE_1 if data.get(name) in (None, "")] == []
        assert [name for name in TYPE_2 if name not in data] == []
        assert "synthetic" in data.ImageComments.lower()
        assert "SYNTHETIC" in data.SeriesDescription
        assert data.PatientName == "PHANTOM^SYNTHETIC"
        assert data.PatientIdentityRemoved == data.QualityControlSubject == "YES"
        assert data.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert data.SOPInstanceUID.startswith("2.25.")
        assert data.SOPInstanceUID.is_valid
        instances.add(data.SOPInstanceUID)
    assert len(instances) == sum(draw_patient(SMALL, index).grid.slices for index in range(SMALL.patients))


def test_pydicom_writes_the_same_bytes(cohort: Path) -> None:
    """Headers are encoded once a series and filled in a slice; pydicom's own encoder has to agree with what stands there."""
    for folder in (cohort / "dicom").iterdir():
        path = min(folder.iterdir())
        again = BytesIO()
        pydicom.dcmwrite(again, pydicom.dcmread(path), enforce_file_format=True)
        assert again.getvalue() == path.read_bytes()


def test_file_names_do_not_give_the_slice_order(cohort: Path) -> None:
    shuffled = 0
    for folder in (cohort / "dicom").iterdir():
        heights = [float(pydicom.dcmread(path, stop_before_pixels=True).SliceLocation) for path in sorted(folder.iterdir())]
        shuffled += heights not in (sorted(heights), sorted(heights, reverse=True))
    assert shuffled >= SMALL.patients - 1  # files named after their UID may come in order


@pytest.mark.parametrize(("wrong", "named"), [({"patients": 0}, "phantom patients"), ({"seed": -1}, "phantom seed")])
def test_settings_out_of_range_are_one_line(wrong: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named) as error:
        make_phantom(tmp_path / "out", **wrong)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_left_alone(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other settings"):
        make_phantom(cohort, config=SMALL, seed=5)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        make_phantom(tmp_path, config=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
