"""A CSV file with a known header, row by row; a table that can't be read is one line to the user."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from mtids_dist.errors import InputError


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str] | None]]:
    """(row number, stripped fields of `columns`) of each row; None for a row whose number of fields is not the header's.

    The header is row 1; blank lines count as rows of a spreadsheet but are not given out. Other columns are left out.
    Raises `InputError` for a missing or empty file, one that is not UTF-8 text, a missing or repeated column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a byte order mark is what Excel writes first
            lines = csv.reader(file)
            header = [name.strip().lower() for name in next(lines, [])]
            places = _places(header, columns, path)
            for row, fields in enumerate(lines, start=2):
                if len(fields) == len(header):
                    yield row, {column: fields[place].strip() for column, place in places.items()}
                elif fields:
                    yield row, None
    except OSError as error:
        raise InputError("can't read the table", where=str(path), found=error.strerror, allowed="a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError("not a CSV table in UTF-8", where=str(path)) from error


def _places(header: list[str], columns: Sequence[str], path: Path) -> dict[str, int]:
    for column in columns:
        if header.count(column) > 1:
            raise InputError(f"column {column} stands there {header.count(column)} times", where=str(path))
        if column not in header:
            nearest = get_close_matches(column, [name for name in header if name not in columns], n=1)
            found = f"{nearest[0]!r}" if nearest else f"{len(header)} columns without it"
            raise InputError(f"no column {column}", where=str(path), found=found, allowed=", ".join(columns))
    return {column: header.index(column) for column in columns}
