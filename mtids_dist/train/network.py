"""The module that DeepSpeed is given: the network, and beside it what a weighting of losses learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn
from torchjd.scalarization import Scalarizer

from mtids_dist.balance import learned_parameters
from mtids_dist.model import MTIDS
from mtids_dist.train.job import TrainJob

SCALARIZATION = "scalarization"
"""The submodule's name, so that optimizer, ZeRO and checkpoints take care of it."""

T = TypeVar("T")


def build_network(job: TrainJob) -> MTIDS:
    """A network with fresh weights, and a scalarization in it where that learns with the network's optimizer."""
    model = job.model.build(job.num_classes)
    scalarization = job.balance.build_scalarization(len(job.tasks))
    if scalarization is not None and learned_parameters(scalarization):
        model.add_module(SCALARIZATION, scalarization)
    return model


def scalarization_for(model: nn.Module, job: TrainJob) -> Scalarizer | None:
    """The one in the network, else a fresh one; None where gradients are weighted."""
    return getattr(model, SCALARIZATION, None) or job.balance.build_scalarization(len(job.tasks))


def without_scalarization(weights: Mapping[str, T]) -> dict[str, T]:
    """What a network needs of weights that are saved with it."""
    return {name: value for name, value in weights.items() if not name.startswith(f"{SCALARIZATION}.")}
