"""Watching work: lines that displays get -> samples of our series -> Ray's gauges and trackers. Knows lines, not training."""

from mtids_dist.observe.monitoring import write_monitoring
from mtids_dist.observe.observers import Observers, each, observers, of_crops, of_search, of_training
from mtids_dist.observe.pages import Pages, find_pages
from mtids_dist.observe.series import SERIES, Series, series_table
from mtids_dist.observe.trackers import Tracker, check_trackers

__all__ = [
    "SERIES",
    "Observers",
    "Pages",
    "Series",
    "Tracker",
    "check_trackers",
    "each",
    "find_pages",
    "observers",
    "of_crops",
    "of_search",
    "of_training",
    "series_table",
    "write_monitoring",
]
