"""pydicom warns about every small breach of the standard; what matters here becomes a named skip instead."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep Python warnings raised inside away from the user's terminal (they may quote header values)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
