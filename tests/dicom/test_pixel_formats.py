"""Encodings of the same voxels: intercepts, signs, transfer syntaxes, damaged pixel data."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from analytic_series import SeriesSpec, write_series
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from mtids_dist.dicom import PixelDecodeError, SkipReason, read_series, scan

SMALL = SeriesSpec(shape=(4, 64, 68))


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(("intercept", "signed"), [(-1024, False), (-1000, False), (0, True), (-1024, True)])
def test_uncompressed(syntax: str, intercept: int, signed: bool, tmp_path: Path) -> None:
    spec = SMALL.but(syntax=syntax, intercept=intercept, signed=signed)
    write_series(tmp_path, spec)
    (series,) = read_series(tmp_path)
    hu = series.read_hu(0, 4)
    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, spec.volume_hu())


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed(syntax: str, tmp_path: Path) -> None:
    spec = SMALL.but(syntax=syntax, compress=True)
    write_series(tmp_path, spec)
    (series,) = read_series(tmp_path)
    np.testing.assert_array_equal(series.read_hu(0, 4), spec.volume_hu())


def test_rescale_is_taken_per_slice(tmp_path: Path) -> None:
    written = write_series(tmp_path, SMALL)
    dataset = dcmread(written[2])
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -500
    dataset.save_as(written[2])
    (series,) = read_series(tmp_path)
    expected = SMALL.volume_hu()
    expected[2] = 2 * (expected[2] + 1024) - 500
    np.testing.assert_array_equal(series.read_hu(0, 4), expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("cut_bytes", [1, 200])
def test_short_pixel_data_is_seen_by_the_header_scan(syntax: str, cut_bytes: int, tmp_path: Path) -> None:
    compress, deflated = syntax in (JPEG2000Lossless, RLELossless), syntax == DeflatedExplicitVRLittleEndian
    written = write_series(tmp_path, SMALL.but(syntax=syntax, compress=compress))
    whole = written[3].read_bytes()
    if compress or deflated:
        cut_bytes += 8  # what ends there is a delimiter or padding: no loss
    written[3].write_bytes(whole[:-cut_bytes])
    result = scan(tmp_path)
    (skipped,) = result.skipped
    assert skipped.path == written[3]
    assert skipped.reason is (SkipReason.UNREADABLE if deflated else SkipReason.TRUNCATED)
    assert [s.shape[0] for s in result.series] == [3]


def test_compressed_pixels_without_a_fragment_are_truncated(tmp_path: Path) -> None:
    written = write_series(tmp_path, SMALL.but(syntax=RLELossless, compress=True))
    whole = written[3].read_bytes()
    written[3].write_bytes(whole[: whole.rindex(b"\xfe\xff\x00\xe0")])  # the item tag of the last, the only fragment
    assert [s.reason for s in scan(tmp_path).skipped] == [SkipReason.TRUNCATED]


def test_damaged_pixels_raise_a_typed_error_that_survives_pickling(tmp_path: Path) -> None:
    written = write_series(tmp_path, SMALL.but(syntax=JPEG2000Lossless, compress=True, patient_id="DOE^JANE"))
    damaged = written[1].read_bytes()
    start = damaged.index(b"\xff\x4f\xff\x51")  # the codestream's first markers
    written[1].write_bytes(damaged[:start] + bytes(60) + damaged[start + 60 :])
    (series,) = read_series(tmp_path)
    assert series.read_hu(2, 4).shape == (2, 64, 68)
    with pytest.raises(PixelDecodeError) as caught:
        series.read_hu(0, 2)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), error.path) == (str(caught.value), written[1])
    assert str(error).startswith("slice 2 of 4: pixel data can't be decoded")
    assert "DOE" not in str(error)
    assert str(tmp_path) not in str(error)


def test_series_is_small_and_picklable(tmp_path: Path) -> None:
    write_series(tmp_path, SMALL)
    (series,) = read_series(tmp_path)
    assert pickle.loads(pickle.dumps(series)) == series
    assert len(pickle.dumps(series)) < 2000
