"""CT series, node tables, crops, pseudonyms and the phantom cohort. Knows nothing of Parquet, Ray or torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtids_dist.dicom.crop import OUTSIDE_HU, Crop, crop
from mtids_dist.dicom.grouping import group_series
from mtids_dist.dicom.header import SliceHeader, read_header, scan_headers
from mtids_dist.dicom.nodes import Node, NodeTable, RejectedNode, RejectReason, read_nodes
from mtids_dist.dicom.pixels import PixelDecodeError
from mtids_dist.dicom.pseudonyms import Pseudonyms, read_or_make_key
from mtids_dist.dicom.scan import Scan, list_files, read_series, scan
from mtids_dist.dicom.series import Series
from mtids_dist.dicom.skips import Skipped, SkipReason
from mtids_dist.dicom.tcia import read_tcia_points

if TYPE_CHECKING:
    from mtids_dist.dicom.phantom import make_phantom
    from mtids_dist.dicom.phantom_settings import PhantomConfig

__all__ = [
    "OUTSIDE_HU",
    "Crop",
    "Node",
    "NodeTable",
    "PhantomConfig",
    "PixelDecodeError",
    "Pseudonyms",
    "RejectReason",
    "RejectedNode",
    "Scan",
    "Series",
    "SkipReason",
    "Skipped",
    "SliceHeader",
    "crop",
    "group_series",
    "list_files",
    "make_phantom",
    "read_header",
    "read_nodes",
    "read_or_make_key",
    "read_series",
    "read_tcia_points",
    "scan",
    "scan_headers",
]


def __getattr__(name: str) -> Any:
    """The phantom is loaded when first asked for: reading scans needs none of it."""
    if name == "make_phantom":
        from mtids_dist.dicom.phantom import make_phantom

        return make_phantom
    if name == "PhantomConfig":
        from mtids_dist.dicom.phantom_settings import PhantomConfig

        return PhantomConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
