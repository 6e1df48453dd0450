"""The command line: each verb checks its arguments and makes one call."""

from __future__ import annotations

from mtids_dist.cli import data, jobs, kubernetes, training, watching
from mtids_dist.cli.app import app, main

__all__ = ["app", "data", "jobs", "kubernetes", "main", "training", "watching"]
