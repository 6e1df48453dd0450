"""Gradient balancing over ranks: DD-GB and its peers, for a DeepSpeed engine or a plain optimizer.

Usable on its own: needs torch, TorchJD and scipy, and DeepSpeed only if an engine is given.
"""

from mtids_dist.balance.balancer import GradientBalancer
from mtids_dist.balance.config import BalanceConfig
from mtids_dist.balance.deepspeed_limits import check_engine
from mtids_dist.balance.gramians import GRAMIANS, Agreement, ExactGramian, Gramian, RepresentationGramian, SketchGramian
from mtids_dist.balance.handover import DeepSpeedHandOver, PlainHandOver
from mtids_dist.balance.info import BalanceInfo
from mtids_dist.balance.loss_balancer import LossBalancer
from mtids_dist.balance.non_finite import NonFiniteGradientError
from mtids_dist.balance.protocol import Balancer
from mtids_dist.balance.scalarizations import SCALARIZATIONS, learned_parameters, make_scalarization
from mtids_dist.balance.weightings import (
    WEIGHTINGS,
    DBMTLWeighting,
    DDGBWeighting,
    GradNormWeighting,
    NashMTLWeighting,
    SeesLosses,
    make_weighting,
)

__all__ = [
    "GRAMIANS",
    "SCALARIZATIONS",
    "WEIGHTINGS",
    "Agreement",
    "BalanceConfig",
    "BalanceInfo",
    "Balancer",
    "DBMTLWeighting",
    "DDGBWeighting",
    "DeepSpeedHandOver",
    "ExactGramian",
    "GradNormWeighting",
    "GradientBalancer",
    "Gramian",
    "LossBalancer",
    "NashMTLWeighting",
    "NonFiniteGradientError",
    "PlainHandOver",
    "RepresentationGramian",
    "SeesLosses",
    "SketchGramian",
    "check_engine",
    "learned_parameters",
    "make_scalarization",
    "make_weighting",
]
