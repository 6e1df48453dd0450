"""The three real series against SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simpleitk_reference import assert_same_as_simpleitk, read_image

from mtids_dist.dicom import Scan, crop, read_nodes, scan

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")


@pytest.fixture(scope="module")
def real_scan() -> Scan:
    return scan(DATA / "ct")


def test_every_file_of_the_real_series_is_used(real_scan: Scan) -> None:
    assert sorted(s.shape for s in real_scan.series) == [(16, 512, 512), (30, 512, 512), (64, 512, 512)]
    assert {s.reason.value for s in real_scan.skipped} == {"not_dicom"}
    assert all(s.path.suffix != ".dcm" for s in real_scan.skipped)
    assert real_scan.files == sum(len(s.paths) for s in real_scan.series) + len(real_scan.skipped)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_crops_of_real_lesions_equal_simpleitk(real_scan: Scan, row: int) -> None:
    table = read_nodes(DATA / "annotations" / "real_lesions.csv")
    assert (len(table.nodes), table.rejected) == (3, ())
    node = table.nodes[row]
    series = next(s for s in real_scan.series if s.uid == node.series_uid)
    assert series.patient_id == node.patient_id
    assert series.contains(node.position_mm)
    image = read_image(series.paths[0].parent, series.uid)
    for size, spacing_mm in ((64, 1.0), (48, 0.7), (33, 1.3), (16, 3.0), (1, 1.0)):
        result = crop(series, node.position_mm, size=size, spacing_mm=spacing_mm)
        assert_same_as_simpleitk(result, image, node.position_mm, size, spacing_mm)
    corner_mm = series.origin_mm
    result = crop(series, corner_mm, size=32, spacing_mm=1.0)
    assert 0.8 < result.outside < 1
    assert_same_as_simpleitk(result, image, corner_mm, 32, 1.0)
    far_mm = np.add(node.position_mm, (0, 0, 5000))
    assert crop(series, far_mm, size=8, spacing_mm=1.0).outside == 1.0
    assert not series.contains(far_mm)
