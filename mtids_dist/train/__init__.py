"""Training: one rank's balanced steps, losses for missing labels, checkpoints, and the Ray Train wiring.

What needs Ray or DeepSpeed is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mtids_dist.train.config import TrainConfig
from mtids_dist.train.job import Leg, RunFolder, TrainJob
from mtids_dist.train.metrics_log import MetricsLog, read_lines
from mtids_dist.train.run_folder import check_run, open_run

if TYPE_CHECKING:
    from mtids_dist.train.checkpoint import PortableState, Progress
    from mtids_dist.train.leg import Place, dataset_of, import_all, order_seed, train_leg
    from mtids_dist.train.network import build_network, without_scalarization
    from mtids_dist.train.trainer import check_gpus, check_job, cpus_of, gpus_per_worker, train

_LAZY = {
    "PortableState": "checkpoint",
    "Place": "leg",
    "Progress": "checkpoint",
    "build_network": "network",
    "check_gpus": "trainer",
    "check_job": "trainer",
    "cpus_of": "trainer",
    "dataset_of": "leg",
    "gpus_per_worker": "trainer",
    "import_all": "leg",
    "order_seed": "leg",
    "train": "trainer",
    "train_leg": "leg",
    "without_scalarization": "network",
}
"""Name -> the module of this room that has it."""

__all__ = [
    "Leg",
    "MetricsLog",
    "Place",
    "PortableState",
    "Progress",
    "RunFolder",
    "TrainConfig",
    "TrainJob",
    "build_network",
    "check_gpus",
    "check_job",
    "check_run",
    "cpus_of",
    "dataset_of",
    "gpus_per_worker",
    "import_all",
    "open_run",
    "order_seed",
    "read_lines",
    "train",
    "train_leg",
    "without_scalarization",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
