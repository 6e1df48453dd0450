"""The node table: one row a lymph node, each row read or rejected by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from pathlib import Path

from mtids_dist.dicom.series import Vector
from mtids_dist.dicom.table import read_rows
from mtids_dist.stations import normalise_station

COLUMNS = (
    "series_instance_uid",
    "patient_id",
    "node_id",
    "x_mm",
    "y_mm",
    "z_mm",
    "short_axis_mm",
    "station",
    "metastasis",
)
METASTASIS = {"": None, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""pandas writes 1 as 1.0 in a column that also has empty cells."""


class RejectReason(str, Enum):
    """Stable names of the reasons for which a row of the node table is not read."""

    FIELD_COUNT = "field_count"
    NO_SERIES_UID = "no_series_uid"
    NO_PATIENT_ID = "no_patient_id"
    NO_NODE_ID = "no_node_id"
    BAD_POSITION = "bad_position"
    BAD_SHORT_AXIS = "bad_short_axis"
    UNKNOWN_STATION = "unknown_station"
    BAD_METASTASIS = "bad_metastasis"
    DUPLICATE_NODE = "duplicate_node"


@dataclass(frozen=True, slots=True)
class Node:
    """One lymph node; None is an unknown label."""

    row: int
    """Line of the table as a spreadsheet shows it: the header is 1."""
    series_uid: str
    patient_id: str
    node_id: str
    position_mm: Vector
    """Centre in patient coordinates (LPS, mm)."""
    short_axis_mm: float | None = None
    station: str | None = None
    """In the spelling of `mtids_dist.stations`."""
    metastasis: int | None = None


@dataclass(frozen=True, slots=True)
class RejectedNode:
    """A row that is not read. `detail` names columns, never what stands in them."""

    row: int
    reason: RejectReason
    detail: str = ""


@dataclass(frozen=True)
class NodeTable:
    """Rows of the table = `nodes` + `rejected`, always; both in the order of the table."""

    nodes: tuple[Node, ...]
    rejected: tuple[RejectedNode, ...]


class _RejectError(Exception):
    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read_nodes(csv_path: Path | str) -> NodeTable:
    """Read a node table (CSV, UTF-8, columns `COLUMNS` in any order; others are ignored, blank lines are no rows).

    `short_axis_mm`, `station` and `metastasis` may be empty. Raises `InputError` if the file can't be read as such a table.
    """
    return collect_nodes(read_rows(Path(csv_path), COLUMNS))


def collect_nodes(rows: Iterable[tuple[int, Mapping[str, str] | None]]) -> NodeTable:
    """Nodes from (row number, fields by column name); fields of None are a row with another number of fields than the header."""
    nodes: dict[tuple[str, str], Node] = {}
    rejected = []
    for row, fields in rows:
        node = _read(row, fields)
        if isinstance(node, RejectedNode):
            rejected.append(node)
        elif (first := nodes.setdefault((node.series_uid, node.node_id), node)) is not node:
            rejected.append(RejectedNode(row, RejectReason.DUPLICATE_NODE, f"same series and node_id as row {first.row}"))
    return NodeTable(tuple(nodes.values()), tuple(rejected))


def _read(row: int, fields: Mapping[str, str] | None) -> Node | RejectedNode:
    try:
        return _node(row, fields)
    except _RejectError as problem:
        return RejectedNode(row, problem.reason, problem.detail)


def _node(row: int, fields: Mapping[str, str] | None) -> Node:
    if fields is None:
        raise _RejectError(RejectReason.FIELD_COUNT, "more or fewer fields than the header")
    return Node(
        row=row,
        series_uid=_name(fields, "series_instance_uid", RejectReason.NO_SERIES_UID),
        patient_id=_name(fields, "patient_id", RejectReason.NO_PATIENT_ID),
        node_id=_name(fields, "node_id", RejectReason.NO_NODE_ID),
        position_mm=(_position(fields, "x_mm"), _position(fields, "y_mm"), _position(fields, "z_mm")),
        short_axis_mm=_short_axis(fields["short_axis_mm"]),
        station=_station(fields["station"]),
        metastasis=_metastasis(fields["metastasis"]),
    )


def _name(fields: Mapping[str, str], column: str, reason: RejectReason) -> str:
    if not fields[column]:
        raise _RejectError(reason, f"{column} is empty")
    return fields[column]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and "_" not in text else None  # Python reads 1_0 as 10


def _position(fields: Mapping[str, str], column: str) -> float:
    if (value := _number(fields[column])) is None:
        raise _RejectError(RejectReason.BAD_POSITION, f"{column} is {'not a number' if fields[column] else 'empty'}")
    return value


def _short_axis(text: str) -> float | None:
    if not text:
        return None
    value = _number(text)
    if value is None or value <= 0:
        raise _RejectError(RejectReason.BAD_SHORT_AXIS, f"short_axis_mm is {'not a number' if value is None else 'not positive'}")
    return value


def _station(text: str) -> str | None:
    if not text:
        return None
    if (station := normalise_station(text)) is None:
        raise _RejectError(RejectReason.UNKNOWN_STATION, "station is no label of the IASLC map")
    return station


def _metastasis(text: str) -> int | None:
    if text not in METASTASIS:
        raise _RejectError(RejectReason.BAD_METASTASIS, "metastasis is not 0, 1 or empty")
    return METASTASIS[text]
