"""Which parameters a loss reaches, read off the autograd graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def leaves_of(losses: Sequence[Tensor]) -> list[nn.Parameter]:
    """Every leaf that one of `losses` depends on, in the order met: the same on every rank that built the same graph."""
    leaves: dict[nn.Parameter, None] = {}
    seen: set[Any] = set()
    open_nodes: list[Any] = [loss.grad_fn for loss in losses]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        parents = node.next_functions
        open_nodes += [parent for parent, _ in parents]
        # Only AccumulateGrad nodes have a leaf, and it is slow to ask others for one.
        leaf = None if parents else getattr(node, "variable", None)
        if leaf is not None:
            leaves[leaf] = None
    return list(leaves)
