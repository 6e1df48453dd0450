"""Shared by all tests: a private Ray without token authentication, reproducible property tests."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # torch's threads would wait for each other's cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("quick", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=300, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_report_header() -> str:
    return f"property tests are derandomised: the same {settings().max_examples} examples every time"
