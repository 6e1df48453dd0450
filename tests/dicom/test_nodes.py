"""Node tables: each row read or rejected by name, a table that is none told in one line."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from mtids_dist.dicom import Node, NodeTable, read_nodes
from mtids_dist.errors import InputError

HEADER = ["series_instance_uid", "patient_id", "node_id", "x_mm", "y_mm", "z_mm", "short_axis_mm", "station", "metastasis"]
GOOD = ["1.2.3", "P1", "1", "10.5", "-20", "3e1", "12.5", "4R", "1"]


def table(path: Path, *rows: list[str], header: list[str] = HEADER, encoding: str = "utf-8", end: str = "\n") -> NodeTable:
    with (path / "nodes.csv").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, lineterminator=end).writerows([header, *rows])
    result = read_nodes(path / "nodes.csv")
    assert len(result.nodes) + len(result.rejected) == len(rows)
    return result


def with_field(column: str, value: str, node_id: str = "1") -> list[str]:
    fields = dict(zip(HEADER, GOOD, strict=True)) | {"node_id": node_id} | {column: value}
    return list(fields.values())


def test_a_good_row(tmp_path: Path) -> None:
    assert table(tmp_path, GOOD).nodes == (Node(2, "1.2.3", "P1", "1", (10.5, -20.0, 30.0), 12.5, "4R", 1),)


@pytest.mark.parametrize(
    ("column", "value", "field", "expected"),
    [
        ("short_axis_mm", "", "short_axis_mm", None),
        ("station", "", "station", None),
        ("station", " 4l ", "station", "4L"),
        ("station", "station 7", "station", "7"),
        ("metastasis", "", "metastasis", None),
        ("metastasis", "0", "metastasis", 0),
        ("metastasis", "1.0", "metastasis", 1),
    ],
)
def test_what_may_stand_in_a_field(column: str, value: str, field: str, expected: object, tmp_path: Path) -> None:
    assert getattr(table(tmp_path, with_field(column, value)).nodes[0], field) == expected


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("series_instance_uid", " ", "no_series_uid"),
        ("patient_id", "", "no_patient_id"),
        ("node_id", "", "no_node_id"),
        ("x_mm", "left", "bad_position"),
        ("y_mm", "", "bad_position"),
        ("z_mm", "nan", "bad_position"),
        ("z_mm", "inf", "bad_position"),
        ("z_mm", "43,02", "bad_position"),
        ("z_mm", "1_0", "bad_position"),
        ("short_axis_mm", "0", "bad_short_axis"),
        ("short_axis_mm", "-3", "bad_short_axis"),
        ("short_axis_mm", "big", "bad_short_axis"),
        ("short_axis_mm", "nan", "bad_short_axis"),
        ("station", "4X", "unknown_station"),
        ("metastasis", "2", "bad_metastasis"),
        ("metastasis", "yes", "bad_metastasis"),
    ],
)
def test_a_bad_field_rejects_its_row_alone(column: str, value: str, reason: str, tmp_path: Path) -> None:
    result = table(tmp_path, with_field("node_id", "0"), with_field(column, value), with_field("node_id", "2"))
    assert [n.node_id for n in result.nodes] == ["0", "2"]
    (rejected,) = result.rejected
    assert (rejected.row, rejected.reason.value) == (3, reason)
    assert column in rejected.detail
    assert not value.strip() or value not in rejected.detail.replace("0, 1 or empty", "")


def test_a_node_twice_and_rows_of_another_length(tmp_path: Path) -> None:
    result = table(tmp_path, GOOD, GOOD, with_field("series_instance_uid", "1.2.4"), GOOD[:-1], [*GOOD, "more"])
    assert len(result.nodes) == 2
    assert [(r.row, r.reason.value) for r in result.rejected] == [(3, "duplicate_node"), (5, "field_count"), (6, "field_count")]
    assert result.rejected[0].detail == "same series and node_id as row 2"


def test_byte_order_mark_crlf_other_columns_and_order(tmp_path: Path) -> None:
    header = [*[f" {name.upper()} " for name in reversed(HEADER)], "Note"]
    result = table(tmp_path, [*reversed(GOOD), "seen, twice"], header=header, encoding="utf-8-sig", end="\r\n")
    assert result.nodes == table(tmp_path, GOOD).nodes


def test_blank_lines_are_no_rows_but_count_for_the_number(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text(",".join(HEADER) + "\n\n" + ",".join(GOOD) + "\n\n")
    result = read_nodes(tmp_path / "nodes.csv")
    assert ([n.row for n in result.nodes], result.rejected) == ([3], ())


def test_misspelt_missing_and_repeated_columns(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"nodes.csv: no column series_instance_uid; found 'series_uid'; allowed: series_instance_uid, p"
    ):
        table(tmp_path, header=["series_uid", *HEADER[1:]])
    with pytest.raises(InputError, match=r"no column metastasis; found 8 columns without it"):
        table(tmp_path, header=HEADER[:-1])
    with pytest.raises(InputError, match=r"column x_mm stands there 2 times"):
        table(tmp_path, header=[*HEADER, "X_mm"])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00binary", b"\x00" * 50, ";".join(HEADER).encode()],
    ids=["empty", "binary", "zeros", "semicolons"],
)
def test_files_that_are_no_table(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"nodes\.csv: ") as caught:
        read_nodes(tmp_path / "nodes.csv")
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError, match="can't read the table"):
            read_nodes(path)


def test_many_rows_are_quick(tmp_path: Path) -> None:
    rows = [with_field("node_id", str(n)) for n in range(5000)]
    start = time.perf_counter()
    assert len(table(tmp_path, *rows).nodes) == 5000
    assert time.perf_counter() - start < 2
