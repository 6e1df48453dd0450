"""Training: one rank's balanced steps, losses for missing labels, checkpoints, and the Ray Train wiring.

What needs Ray or DeepSpeed is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtids_dist.train.config import TrainConfig
from mtids_dist.train.job import RunFolder, TrainJob
from mtids_dist.train.metrics_log import MetricsLog, read_lines
from mtids_dist.train.run_folder import open_run

if TYPE_CHECKING:
    from mtids_dist.train.trainer import check_job, train

_LAZY = {"check_job": "mtids_dist.train.trainer", "train": "mtids_dist.train.trainer"}

__all__ = ["MetricsLog", "RunFolder", "TrainConfig", "TrainJob", "check_job", "open_run", "read_lines", "train"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
