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
        leaf = getattr(node, "variable", None)  # only AccumulateGrad nodes have one
        if leaf is not None:
            leaves[leaf] = None
        open_nodes.extend(parent for parent, _ in node.next_functions)
    return list(leaves)
