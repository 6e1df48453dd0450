"""TCIA's text triples give the same rows as a node table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mtids_dist.dicom import NodeTable, read_tcia_points
from mtids_dist.errors import InputError

ANNOTATIONS = Path(__file__).parents[2].parent / "shared" / "data" / "annotations"


def write(folder: Path, points: str, sizes: str) -> NodeTable:
    (folder / "A_lymphnodes_physicalPoints.txt").write_text(points)
    (folder / "A_lymphnodes_sizes.txt").write_text(sizes)
    return read_tcia_points(folder, series_uid="1.2", patient_id="A")


@pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="../shared/data is not here")
def test_published_files_equal_the_table_made_of_them() -> None:
    with (ANNOTATIONS / "tcia_ct_lymph_nodes_mediastinal.csv").open() as file:
        rows = list(csv.DictReader(file))
    patients = sorted(p.name for p in (ANNOTATIONS / "tcia_originals").iterdir())
    assert len(patients) == 4
    for patient in patients:
        table = read_tcia_points(ANNOTATIONS / "tcia_originals" / patient, series_uid="1.2", patient_id=patient)
        expected = [r for r in rows if r["patient_id"] == patient]
        assert len(table.nodes) + len(table.rejected) == len(expected)
        for node in table.nodes:
            row = expected[node.row - 1]
            assert node.position_mm == tuple(float(row[c]) for c in ("x_mm", "y_mm", "z_mm"))
            assert (node.short_axis_mm, node.station, node.metastasis) == (float(row["short_axis_mm"]), None, None)
        zero = [n for n, r in enumerate(expected, start=1) if float(r["short_axis_mm"]) == 0]
        assert [(r.row, r.reason.value) for r in table.rejected] == [(n, "bad_short_axis") for n in zero]


def test_the_short_axis_is_the_smaller_number(tmp_path: Path) -> None:
    table = write(tmp_path, "1 2 3\n-4\t5.5 6\n\n", "18 9.5\n12\n")
    assert [n.short_axis_mm for n in table.nodes] == [9.5, 12.0]
    assert [(n.node_id, n.position_mm) for n in table.nodes] == [("1", (1.0, 2.0, 3.0)), ("2", (-4.0, 5.5, 6.0))]


def test_lines_that_are_no_node(tmp_path: Path) -> None:
    table = write(tmp_path, "1 2\n1 2 c\n1 2 3\n", "9\n9\nsmall\n")
    assert [r.reason.value for r in table.rejected] == ["field_count", "bad_position", "bad_short_axis"]


def test_missing_and_unequal_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one file \*_physicalPoints.txt expected; found 0"):
        read_tcia_points(tmp_path, series_uid="1.2", patient_id="A")
    with pytest.raises(InputError, match=r"points and sizes differ in number; found 2 and 1"):
        write(tmp_path, "1 2 3\n4 5 6\n", "9\n")
