"""How the ranks agree on the Gramian of the task gradients."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mtids_dist.balance.gramians.agreement import Agreement, Gramian
from mtids_dist.balance.gramians.exact import ExactGramian
from mtids_dist.balance.gramians.representation import RepresentationGramian
from mtids_dist.balance.gramians.sketch import SketchGramian

GRAMIANS: Mapping[str, Callable[..., Gramian]] = MappingProxyType(
    {"exact": ExactGramian, "sketch": SketchGramian, "representation": RepresentationGramian}
)
"""Every way to agree on the Gramian, by name."""

__all__ = ["GRAMIANS", "Agreement", "ExactGramian", "Gramian", "RepresentationGramian", "SketchGramian"]
