"""What is no usable series ends as a named skip: one test a reason, on series written here."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analytic_series import CORONAL, SeriesSpec, rotated, write_series, write_slice
from pydicom import dcmread
from pydicom.uid import EnhancedCTImageStorage, MRImageStorage

from mtids_dist.dicom import Scan, SkipReason, group_series, list_files, read_series, scan, scan_headers
from mtids_dist.errors import InputError

SPEC = SeriesSpec(shape=(6, 8, 8))
OTHER = SPEC.but(uid=SPEC.uid[:-1] + "2", seed=1)


def reasons(result: Scan) -> Counter[str]:
    assert result.files == sum(len(s.paths) for s in result.series) + len(result.skipped)
    used = [p for s in result.series for p in s.paths]
    assert len({*used, *(s.path for s in result.skipped)}) == result.files
    return Counter(s.reason.value for s in result.skipped)


def edit(path: Path, **elements: Any) -> None:
    dataset = dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "b", SPEC)
    for name, content in {
        "notes.txt": b"x" * 300,
        "t.csv": b"a,b\n",
        "p.png": b"\x89PNG\r\n",
        "empty": b"",
        "Thumbs.db": bytes(999),
    }.items():
        (tmp_path / "a" / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    result = scan(tmp_path)
    assert reasons(result) == {"not_dicom": 6}
    assert len(result.series) == 1


def test_two_series_in_one_folder_without_suffixes_are_told_apart(tmp_path: Path) -> None:
    for path in write_series(tmp_path, SPEC) + write_series(tmp_path, OTHER):
        path.rename(path.with_suffix(""))
    result = scan(tmp_path)
    assert reasons(result) == {}
    assert [s.uid for s in result.series] == [SPEC.uid, OTHER.uid]


def test_headers_can_be_grouped_in_any_order(tmp_path: Path) -> None:
    write_series(tmp_path, SPEC)
    write_series(tmp_path, OTHER)[2].write_bytes(b"no")
    headers = scan_headers(list_files(tmp_path))
    shuffled = [headers[i] for i in np.random.default_rng(5).permutation(len(headers))]
    assert group_series(shuffled) == group_series(headers)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "MR", "SOPClassUID": MRImageStorage}, SkipReason.NOT_CT),
        ({"Modality": None}, SkipReason.NOT_CT),
        ({"SOPClassUID": EnhancedCTImageStorage}, SkipReason.MULTI_FRAME),
        ({"NumberOfFrames": 2}, SkipReason.MULTI_FRAME),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, SkipReason.LOCALIZER),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER", "SCOUT"]}, SkipReason.LOCALIZER),
        ({"PixelData": None}, SkipReason.NO_PIXELS),
        ({"ImagePositionPatient": None}, SkipReason.MISSING_TAG),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, SkipReason.MISSING_TAG),
        ({"PixelSpacing": [0, 1]}, SkipReason.MISSING_TAG),
        ({"Rows": None}, SkipReason.MISSING_TAG),
        ({"SeriesInstanceUID": None}, SkipReason.MISSING_TAG),
        ({"RescaleIntercept": None}, SkipReason.MISSING_TAG),
        ({"RescaleType": "Z_EFF"}, SkipReason.NOT_HOUNSFIELD),
        ({"SamplesPerPixel": 3}, SkipReason.NOT_HOUNSFIELD),
        ({"BitsAllocated": 32}, SkipReason.TRUNCATED),
    ],
    ids=str,
)
def test_a_slice_of_another_kind_is_dropped_by_name(elements: dict[str, Any], reason: SkipReason, tmp_path: Path) -> None:
    written = write_series(tmp_path, SPEC)
    edit(written[-1], **elements)
    result = scan(tmp_path)
    assert reasons(result) == {reason.value: 1}
    assert result.skipped[0].path == written[-1]
    assert [len(s.paths) for s in result.series] == [5]


def test_unknown_transfer_syntax(tmp_path: Path) -> None:
    written = write_series(tmp_path, SPEC)
    whole = written[0].read_bytes()
    written[0].write_bytes(whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    assert reasons(scan(tmp_path)) == {"unsupported_syntax": 1}


@pytest.mark.parametrize(
    "tags",
    [{"BodyPartExamined": None}, {"PatientID": None}, {"SOPInstanceUID": None}, {"RescaleType": "US"}, {"SOPClassUID": None}],
    ids=str,
)
def test_absent_tags_that_nothing_hangs_on(tags: dict[str, Any], tmp_path: Path) -> None:
    write_series(tmp_path, SPEC.but(tags=tags))
    result = scan(tmp_path)
    assert (reasons(result), len(result.series)) == ({}, 1)


@pytest.mark.parametrize("missing", [1, 3, 4])
def test_a_missing_slice_in_mid_series(missing: int, tmp_path: Path) -> None:
    write_series(tmp_path, SPEC)[missing].unlink()
    result = scan(tmp_path)
    assert reasons(result) == {"uneven_spacing": 5}
    assert {s.detail for s in result.skipped} == {"gaps of 2.50 to 5.00 mm"}
    assert {s.series_uid for s in result.skipped} == {SPEC.uid}


@pytest.mark.parametrize("missing", [1, 50, 98])
def test_a_missing_slice_of_a_long_series(missing: int, tmp_path: Path) -> None:
    spec = SeriesSpec(shape=(100, 2, 2), spacing_mm=(0.6, 1.0, 1.0))
    write_series(tmp_path, spec)[missing].unlink()
    assert reasons(scan(tmp_path)) == {"uneven_spacing": 99}


def test_positions_rounded_to_a_tenth_are_even(tmp_path: Path) -> None:
    written = write_series(tmp_path, SPEC.but(shape=(40, 4, 4), spacing_mm=(0.625, 1.0, 1.0)))
    for path in written:
        edit(path, ImagePositionPatient=[f"{v:.1f}" for v in dcmread(path).ImagePositionPatient])
    (series,) = read_series(tmp_path)
    assert series.spacing_mm[2] == pytest.approx(0.625, abs=0.003)


def test_the_same_slice_twice_is_used_once(tmp_path: Path) -> None:
    written = write_series(tmp_path / "a", SPEC)
    write_series(tmp_path / "copy", SPEC)
    result = scan(tmp_path)
    assert reasons(result) == {"duplicate_file": 6}
    assert result.series[0].paths == tuple(written)


def test_a_repeated_uid_at_another_place_is_another_slice(tmp_path: Path) -> None:
    for path in write_series(tmp_path, SPEC):
        edit(path, SOPInstanceUID=SPEC.uid + ".7")
    result = scan(tmp_path)
    assert (reasons(result), result.series[0].shape) == ({}, SPEC.shape)


@pytest.mark.parametrize("uid", [SPEC.uid + ".99", None])
def test_several_slices_at_one_position(uid: str | None, tmp_path: Path) -> None:
    written = write_series(tmp_path, SPEC)
    edit(write_slice(tmp_path / "again.dcm", SPEC, 3), SOPInstanceUID=uid)
    if uid is None:
        edit(written[3], SOPInstanceUID=None)
    assert reasons(scan(tmp_path)) == {"duplicate_position": len(written) + 1}


def test_a_tilted_gantry_without_its_tag(tmp_path: Path) -> None:
    """Slices turned by 1 degree about x, but moved along z."""
    tilted = SPEC.but(orientation=rotated((1, 0, 0)), shape=(12, 8, 8), spacing_mm=(2.5, 1.0, 1.0))
    for k, path in enumerate(write_series(tmp_path, tilted)):
        edit(path, ImagePositionPatient=[0, 0, 2.5 * k])
    result = scan(tmp_path)
    assert reasons(result) == {"gantry_tilt": 12}
    assert result.skipped[0].detail == "slices drift 0.48 mm sideways, 1.0 degrees off their normal"


def test_a_tilt_tag_alone_is_believed(tmp_path: Path) -> None:
    write_series(tmp_path, SPEC.but(tags={"GantryDetectorTilt": "-12.5"}))
    result = scan(tmp_path)
    assert reasons(result) == {"gantry_tilt": 6}
    assert result.skipped[0].detail == "GantryDetectorTilt -12.5 degrees"


@pytest.mark.parametrize(
    "elements",
    [
        {"ImagePositionPatient": [-20, -13, 105]},
        {"PixelSpacing": [0.9, 1.2]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        {"Rows": 4},
    ],
    ids=str,
)
def test_one_slice_that_does_not_fit(elements: dict[str, Any], tmp_path: Path) -> None:
    edit(write_series(tmp_path, SPEC)[2], **elements)
    assert reasons(scan(tmp_path)) == {"inconsistent_geometry": 6}


def test_two_scouts_without_their_tag(tmp_path: Path) -> None:
    write_series(tmp_path, SPEC.but(shape=(1, 8, 8)))
    write_slice(tmp_path / "coronal", SPEC.but(orientation=CORONAL), 1)
    assert reasons(scan(tmp_path)) == {"inconsistent_geometry": 2}


def test_a_single_slice_and_two_patients_in_one_series(tmp_path: Path) -> None:
    write_series(tmp_path, SPEC.but(shape=(1, 8, 8)))
    edit(write_series(tmp_path, OTHER)[0], PatientID="somebody else")
    assert reasons(scan(tmp_path)) == {"too_few_slices": 1, "mixed_patients": 6}


def test_no_value_of_a_header_gets_into_details(tmp_path: Path) -> None:
    secret = "ROE RICHARD"
    for n, tags in enumerate(
        ({"Modality": "ROE"}, {"RescaleType": secret}, {"GantryDetectorTilt": "3"}, {"ImageType": ["LOCALIZER", secret]})
    ):
        write_series(tmp_path / str(n), SPEC.but(uid=f"{SPEC.uid}.{n}", patient_id=secret, tags={"PatientName": secret, **tags}))
    for n, element in {10: b"\x28\x00\x08\x00IS\x04\x00", 11: b"\x28\x00\x52\x10DS\x08\x00"}.items():  # frames, intercept
        spec = SPEC.but(uid=f"{SPEC.uid}.{n}", tags={"NumberOfFrames": 1111 if n == 10 else None})
        for path in write_series(tmp_path / str(n), spec):
            before, after = path.read_bytes().split(element)
            path.write_bytes(before + element + b"ROE^" + after[4:])
    result = scan(tmp_path)
    assert set(reasons(result)) == {"not_ct", "not_hounsfield", "gantry_tilt", "localizer", "unreadable", "missing_tag"}
    assert all("ROE" not in s.detail for s in result.skipped)


def test_links_are_followed_once_and_dead_ones_are_named(tmp_path: Path) -> None:
    write_series(tmp_path / "store", SPEC)
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "store")
    (folder / "loop").symlink_to(folder)
    (folder / "dead").symlink_to(tmp_path / "nowhere")
    result = scan(folder)
    assert reasons(result) == {"unreadable": 1}
    assert len(result.series) == 1


def test_progress_and_missing_folder(tmp_path: Path) -> None:
    write_series(tmp_path, SPEC)
    seen: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]
    with pytest.raises(InputError, match="no such DICOM folder"):
        read_series(tmp_path / "absent")
