"""Search over expert counts and other settings with Ray Tune: members copy better ones and keep what those have learned.

What needs Ray or torch is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtids_dist.tune.config import Range, Resize, Scheduler, SearchConfig

if TYPE_CHECKING:
    from mtids_dist.tune.driver import search
    from mtids_dist.tune.folder import SearchFolder
    from mtids_dist.tune.history import History
    from mtids_dist.tune.space import check_space

_LAZY = {"History": "history", "SearchFolder": "folder", "check_space": "space", "search": "driver"}
"""Name -> the module of this room that has it."""

__all__ = ["History", "Range", "Resize", "Scheduler", "SearchConfig", "SearchFolder", "check_space", "search"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
