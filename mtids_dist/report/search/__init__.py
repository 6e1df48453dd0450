"""The page of a search folder, read from its files: what the population did and learned."""

from __future__ import annotations

from mtids_dist.report.search.folder import holds_search, read_search
from mtids_dist.report.search.lineage_picture import lineage_png
from mtids_dist.report.search.page import search_page

__all__ = ["holds_search", "lineage_png", "read_search", "search_page"]
