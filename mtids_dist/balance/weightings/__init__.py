"""From the Gramian of the task gradients to the tasks' weights: DD-GB and its peers."""

from mtids_dist.balance.weightings.catalogue import WEIGHTINGS, make_weighting
from mtids_dist.balance.weightings.ddgb import DDGBWeighting
from mtids_dist.balance.weightings.losses import DBMTLWeighting, GradNormWeighting, SeesLosses
from mtids_dist.balance.weightings.nash import NashMTLWeighting

__all__ = [
    "WEIGHTINGS",
    "DBMTLWeighting",
    "DDGBWeighting",
    "GradNormWeighting",
    "NashMTLWeighting",
    "SeesLosses",
    "make_weighting",
]
