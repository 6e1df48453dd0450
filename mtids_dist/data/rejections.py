"""`rejected.parquet`: every file and node row that is not in the store, with its reason and without an identifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum

import pyarrow as pa

from mtids_dist.settings import Settings


class NodeReason(str, Enum):
    """Why a node that the table names well has no crop; beside these stand the reasons of `read_nodes`."""

    SERIES_NOT_FOUND = "series_not_found"
    SERIES_SKIPPED = "series_skipped"
    PATIENT_MISMATCH = "patient_mismatch"
    OUTSIDE_VOLUME = "outside_volume"
    MOSTLY_OUTSIDE = "mostly_outside"
    DECODE_FAILED = "decode_failed"
    WORKER_DIED = "worker_died"


class Rejection(Settings):
    """One row of `rejected.parquet`."""

    kind: str
    """`node` or `file`"""
    item: str | None
    """keyed hash of the node or file; null for a row of the node table that names no node"""
    row: int | None
    """line of the node table as a spreadsheet shows it (the header is 1); null for a file"""
    reason: str
    detail: str = ""
    """numbers and names of tags or columns, never a value that could name a patient"""


_SCHEMA = pa.schema(
    [("kind", pa.string()), ("item", pa.string()), ("row", pa.int32()), ("reason", pa.string()), ("detail", pa.string())]
)


def rejection_table(rejections: Iterable[Rejection]) -> pa.Table:
    """The rows as they stand in `rejected.parquet`: nodes by line of the table, then files by hash."""
    ordered = sorted(rejections, key=lambda r: (r.kind != "node", r.row or 0, r.item or ""))
    return pa.Table.from_pylist([rejection.model_dump() for rejection in ordered], schema=_SCHEMA)


def count_reasons(rejected: pa.Table) -> dict[str, int]:
    """`<kind>: <reason>` -> how many, most frequent first."""
    pairs = zip(rejected.column("kind").to_pylist(), rejected.column("reason").to_pylist(), strict=True)
    counts = Counter(f"{kind}: {reason}" for kind, reason in pairs)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
