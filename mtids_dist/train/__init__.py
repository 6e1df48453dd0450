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
    from mtids_dist.train.checks import check_gpus, check_job
    from mtids_dist.train.leg import dataset_of, import_all, order_seed, train_leg
    from mtids_dist.train.memory import MemoryEstimate
    from mtids_dist.train.network import build_network, without_scalarization
    from mtids_dist.train.place import Place
    from mtids_dist.train.rehearsal import Rehearsal, rehearse_here
    from mtids_dist.train.rehearsal_on_ray import rehearse_on_ray
    from mtids_dist.train.trainer import check_cluster, cpus_of, gpus_per_worker, train

_LAZY = {
    "MemoryEstimate": "memory",
    "Place": "place",
    "PortableState": "checkpoint",
    "Progress": "checkpoint",
    "Rehearsal": "rehearsal",
    "build_network": "network",
    "check_cluster": "trainer",
    "check_gpus": "checks",
    "check_job": "checks",
    "cpus_of": "trainer",
    "dataset_of": "leg",
    "gpus_per_worker": "trainer",
    "import_all": "leg",
    "order_seed": "leg",
    "rehearse_here": "rehearsal",
    "rehearse_on_ray": "rehearsal_on_ray",
    "train": "trainer",
    "train_leg": "leg",
    "without_scalarization": "network",
}
"""Name -> the module of this room that has it."""

__all__ = [
    "Leg",
    "MemoryEstimate",
    "MetricsLog",
    "Place",
    "PortableState",
    "Progress",
    "Rehearsal",
    "RunFolder",
    "TrainConfig",
    "TrainJob",
    "build_network",
    "check_cluster",
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
    "rehearse_here",
    "rehearse_on_ray",
    "train",
    "train_leg",
    "without_scalarization",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
