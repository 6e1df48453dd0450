"""A run or search folder as one HTML page."""

from __future__ import annotations

from mtids_dist.report.page import write_report

__all__ = ["write_report"]
