"""Headers into series: one a SeriesInstanceUID, or all of its files skipped for one named reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mtids_dist.dicom.geometry import make_series
from mtids_dist.dicom.header import SliceHeader
from mtids_dist.dicom.series import Series
from mtids_dist.dicom.skips import SkipError, Skipped, SkipReason


def group_series(headers: Iterable[SliceHeader | Skipped]) -> tuple[tuple[Series, ...], tuple[Skipped, ...]]:
    """Usable series (sorted by UID) and everything else, sorted by path. Each path comes out once, in any order of input.

    What was skipped before is handed on.
    """
    slices_of: defaultdict[str, list[SliceHeader]] = defaultdict(list)
    skipped: list[Skipped] = []
    for header in headers:
        if isinstance(header, Skipped):
            skipped.append(header)
        else:
            slices_of[header.series_uid].append(header)
    series = []
    for uid in sorted(slices_of):
        slices, copies = _without_copies(sorted(slices_of[uid], key=lambda s: s.path))
        skipped += [Skipped(s.path, uid, SkipReason.DUPLICATE_FILE, "the same slice is there already") for s in copies]
        try:
            series.append(make_series(slices))
        except SkipError as problem:
            skipped += [Skipped(s.path, uid, problem.reason, problem.detail) for s in slices]
    return tuple(series), tuple(sorted(skipped, key=lambda s: s.path))


def _without_copies(slices: list[SliceHeader]) -> tuple[list[SliceHeader], list[SliceHeader]]:
    """First of each slice, and its copies: same SOPInstanceUID at the same place (a UID alone is not always unique)."""
    first: dict[object, SliceHeader] = {}
    copies = []
    for header in slices:
        key = (header.sop_uid, header.patient_id, header.position_mm) if header.sop_uid else header.path
        if first.setdefault(key, header) is not header:
            copies.append(header)
    return list(first.values()), copies
