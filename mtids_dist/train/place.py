"""A rank's place in its world, and the environment that says it to DeepSpeed and Ray Train."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Place:
    """A rank's place in its world; `address` and `port` are where rank 0 listens."""

    rank: int
    world_size: int
    address: str
    port: int


@contextmanager
def as_torchrun_does(place: Place) -> Iterator[None]:
    """Ray gives every process the sight of its own GPU alone, so each is the only one on its node, as torchrun counts."""
    mine = {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
