"""The text files of TCIA "CT Lymph Nodes" (doi 10.7937/K9/TCIA.2015.AQIIDCNM) as rows of a node table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mtids_dist.dicom.nodes import COLUMNS, NodeTable, collect_nodes
from mtids_dist.errors import InputError


def read_tcia_points(folder: Path | str, *, series_uid: str, patient_id: str) -> NodeTable:
    """Nodes of one patient from `*_physicalPoints.txt` (`x y z` a line, mm) and `*_sizes.txt` (one or two axes a line, mm).

    Nodes are numbered from 1 in the files' order, which is also their row. Positions are taken as published, as LPS. The
    smaller of two axes is the short one. The collection says neither station nor metastasis: both stay unknown. A node
    that can't be read is rejected as in `read_nodes` (one published size is 0). Raises `InputError` if a file is missing
    or the two do not have the same number of lines.
    """
    points, sizes = (_lines(Path(folder), f"*_{kind}.txt") for kind in ("physicalPoints", "sizes"))
    if len(points) != len(sizes):
        raise InputError("points and sizes differ in number", where=str(folder), found=f"{len(points)} and {len(sizes)}")

    def rows() -> Iterator[tuple[int, Mapping[str, str] | None]]:
        for row, (point, size) in enumerate(zip(points, sizes, strict=True), start=1):
            values = (series_uid, patient_id, str(row), *point, _shorter(size), "", "")
            yield row, dict(zip(COLUMNS, values, strict=True)) if len(point) == 3 else None

    return collect_nodes(rows())


def _lines(folder: Path, pattern: str) -> list[list[str]]:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise InputError(f"one file {pattern} expected", where=str(folder), found=f"{len(files)} such files")
    try:
        return [line.split() for line in files[0].read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("not a text file that can be read", where=str(files[0])) from error


def _shorter(axes: list[str]) -> str:
    try:
        return min(axes, key=float)
    except ValueError:
        return " ".join(axes)  # not numbers: left to the node table's own check
