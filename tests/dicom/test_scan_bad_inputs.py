"""Bad inputs of the wild and pydicom's own test files: each a named skip, and not a word on the terminal."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pydicom
import pytest
from analytic_series import SeriesSpec, write_series

from mtids_dist.dicom import PixelDecodeError, Scan, scan

DATA = Path(__file__).parents[2].parent / "shared" / "data"
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def pydicom_scan() -> Scan:
    return scan(PYDICOM_FILES)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("folder", "reason", "files"),
    [
        ("gantry_tilt", "gantry_tilt", 4),
        ("uneven_slice_increment", "uneven_spacing", 4),
        ("same_position_not_a_volume", "duplicate_position", 4),
        ("enhanced_multiframe_ct", "multi_frame", 1),
    ],
)
def test_bad_inputs_are_named(folder: str, reason: str, files: int) -> None:
    result = scan(DATA / "bad_inputs" / folder)
    assert (result.series, result.files) == ((), files)
    assert Counter(s.reason.value for s in result.skipped) == {reason: files}


def test_pydicoms_own_files_are_used_or_named(pydicom_scan: Scan) -> None:
    paths = {p for p in PYDICOM_FILES.rglob("*") if p.is_file()}
    used = [p for s in pydicom_scan.series for p in s.paths]
    assert pydicom_scan.files == len(paths) == len(used) + len(pydicom_scan.skipped)
    assert paths == {*used, *(s.path for s in pydicom_scan.skipped)}
    reason_of = {s.path.name: s.reason.value for s in pydicom_scan.skipped}
    expected = {
        "CT_small.dcm": "too_few_slices",
        "MR_small.dcm": "not_ct",
        "MR_truncated.dcm": "not_ct",
        "DICOMDIR": "dicomdir",
        "DICOMDIR-bigEnd": "dicomdir",
        "rtstruct.dcm": "not_dicom",
        "zipMR.gz": "not_dicom",
        "README.txt": "not_dicom",
        "6293": "localizer",
        "no_meta.dcm": "not_dicom",
        "rtplan_truncated.dcm": "not_ct",
    }
    assert {name: reason_of[name] for name in expected} == expected


def test_the_usable_series_among_pydicoms_files_decode(pydicom_scan: Scan) -> None:
    for series in pydicom_scan.series:
        try:
            hu = series.read_hu(0, series.shape[0])
        except PixelDecodeError:
            continue
        assert hu.shape == series.shape


def test_every_prefix_of_a_file_is_used_or_named(tmp_path: Path) -> None:
    """A download may stop at any byte."""
    whole = (PYDICOM_FILES / "CT_small.dcm").read_bytes()
    for size in range(0, len(whole), 149):
        (tmp_path / f"{size}").write_bytes(whole[:size])
    result = scan(tmp_path)
    assert (result.series, len(result.skipped)) == ((), result.files)
    assert {s.reason.value for s in result.skipped} <= {
        "not_dicom",
        "unreadable",
        "not_ct",
        "no_pixels",
        "truncated",
        "missing_tag",
        "too_few_slices",  # cut in the padding behind the pixels: a whole slice
    }


def test_nothing_reaches_the_terminal(tmp_path: Path) -> None:
    for path in write_series(tmp_path, SeriesSpec(shape=(3, 8, 8))):
        dataset = pydicom.dcmread(path)
        dataset.PixelData += bytes(100)  # pydicom warns of that when it decodes
        dataset.save_as(path)
    program = f"""
from mtids_dist.dicom import PixelDecodeError, scan
for series in (*scan({str(PYDICOM_FILES)!r}).series, *scan({str(tmp_path)!r}).series):
    try:
        series.read_hu(0, series.shape[0])
    except PixelDecodeError:
        pass
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
