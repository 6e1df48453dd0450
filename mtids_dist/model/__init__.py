"""The network: a trunk, shared and private experts, DBR gates and heads, as data-free torch modules.

What MT-IDS's abstract calls DBR is built here in our documented reading of it (no equations are public).
Usable on its own: needs torch and safetensors, and MONAI for the ResNet trunks.
"""

from mtids_dist.model.config import ModelConfig, Routing, Trunk
from mtids_dist.model.gates import GateUse
from mtids_dist.model.init_from import LoadReport, NotLoaded, load_trunk
from mtids_dist.model.mtids import MTIDS
from mtids_dist.model.params import ParamCount, nothing_allocated
from mtids_dist.model.resize import plan_resize, resize_experts
from mtids_dist.model.resize_plan import Origin, ResizePlan

__all__ = [
    "MTIDS",
    "GateUse",
    "LoadReport",
    "ModelConfig",
    "NotLoaded",
    "Origin",
    "ParamCount",
    "ResizePlan",
    "Routing",
    "Trunk",
    "load_trunk",
    "nothing_allocated",
    "plan_resize",
    "resize_experts",
]
