"""Everything here wants a GPU and skips without one. MTIDS_GPU_TESTS_ON=cpu tries the code of these tests on a CPU instead."""

from __future__ import annotations

import os

import pytest

ON = os.environ.get("MTIDS_GPU_TESTS_ON", "cuda")


@pytest.fixture(scope="session")
def device() -> str:
    """cuda, but for somebody who only tries these tests' code."""
    return ON


def pytest_runtest_setup() -> None:
    """Skip from here, and not from a fixture, so that all of them are told in one line."""
    import torch

    if ON == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU: torch.cuda.is_available() is False")
