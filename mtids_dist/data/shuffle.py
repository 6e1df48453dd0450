"""Shuffling a stream within a buffer of fixed size.

Ray Data's own (`local_shuffle_buffer_size`) yields short batches in mid-stream, so that ranks would take different numbers
of steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def shuffled(rows: Iterable[T], capacity: int, rng: np.random.Generator) -> Iterator[T]:
    """Every row once, in an order drawn from a buffer of `capacity` rows: a random one leaves as the next comes in."""
    held: list[T] = []
    for row in rows:
        if len(held) < capacity:
            held.append(row)
            continue
        slot = int(rng.integers(capacity))
        yield held[slot]
        held[slot] = row
    for index in rng.permutation(len(held)):
        yield held[index]
