"""Gradient balancing over ranks: DD-GB and its peers, for a DeepSpeed engine or a plain optimizer.

Usable on its own: needs torch, TorchJD and scipy, and DeepSpeed only if an engine is given.
"""

from mtids_dist.balance.balancer import GradientBalancer, NonFiniteGradientError
from mtids_dist.balance.config import BalanceConfig
from mtids_dist.balance.ddgb import DDGBWeighting
from mtids_dist.balance.exact import ExactGramian
from mtids_dist.balance.gramian import Agreement, Gramian
from mtids_dist.balance.handover import DeepSpeedHandOver, PlainHandOver
from mtids_dist.balance.info import BalanceInfo
from mtids_dist.balance.representation import RepresentationGramian
from mtids_dist.balance.sketch import SketchGramian
from mtids_dist.balance.weightings import WEIGHTINGS, make_weighting

__all__ = [
    "WEIGHTINGS",
    "Agreement",
    "BalanceConfig",
    "BalanceInfo",
    "DDGBWeighting",
    "DeepSpeedHandOver",
    "ExactGramian",
    "GradientBalancer",
    "Gramian",
    "NonFiniteGradientError",
    "PlainHandOver",
    "RepresentationGramian",
    "SketchGramian",
    "make_weighting",
]
