"""The ways to take a step that are compared, each a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from nets import Net
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchjd.aggregation import PCGradWeighting, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from mtids_dist.balance import DDGBWeighting, ExactGramian, GradientBalancer, Gramian, RepresentationGramian, SketchGramian

FOR_EVER = 1 << 30


@dataclass
class Plain:
    """One backward of the mean loss; over ranks by torch's DistributedDataParallel."""

    net: Net

    def __post_init__(self) -> None:
        self._module = DistributedDataParallel(self.net) if dist.is_initialized() else self.net

    def __call__(self, crops: Tensor, labels: Tensor) -> None:
        """Leaves gradients."""
        logits, _ = self._module(crops)
        torch.stack([nn.functional.cross_entropy(z, labels[:, k]) for k, z in enumerate(logits)]).mean().backward()


@dataclass
class TorchJD:
    """TorchJD's own way on one rank: `mtl_backward`, then UPGrad."""

    net: Net

    def __call__(self, crops: Tensor, labels: Tensor) -> None:
        """Leaves gradients."""
        losses, border = self.net.losses(crops, labels)
        mtl_backward(list(losses.values()), features=border, parallel_chunk_size=1)  # vmap has no 3-D convolutions here
        jac_to_grad(self.net.trunk.parameters(), UPGrad())


@dataclass
class Backwards:
    """How LibMTL goes about it: K backward passes through the whole network, then PCGrad on the collected gradients."""

    net: Net

    def __call__(self, crops: Tensor, labels: Tensor) -> None:
        """Leaves gradients."""
        losses, _ = self.net.losses(crops, labels)
        shared, rows = list(self.net.trunk.parameters()), []
        for k, loss in enumerate(losses.values()):
            for parameter in shared:
                parameter.grad = None
            loss.backward(retain_graph=k < len(losses) - 1)
            rows.append(torch.cat([p.grad.reshape(-1) for p in shared if p.grad is not None]))
        J = torch.stack(rows)
        pieces = (PCGradWeighting()(J @ J.T) @ J).split([p.numel() for p in shared])
        for parameter, piece in zip(shared, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)


class Ours:
    """DD-GB through a `GradientBalancer`."""

    def __init__(self, net: Net, gramian: Gramian, every: int = 1) -> None:
        self.net = net
        self.balancer = GradientBalancer(net.trunk.parameters(), DDGBWeighting(), gramian=gramian, every=every)

    def __call__(self, crops: Tensor, labels: Tensor) -> None:
        """Leaves gradients."""
        losses, border = self.net.losses(crops, labels)
        self.balancer.backward(losses, (border,))


OURS: Mapping[str, Callable[[Net], Ours]] = {
    "exact": lambda net: Ours(net, ExactGramian()),
    "sketch": lambda net: Ours(net, SketchGramian()),
    "representation": lambda net: Ours(net, RepresentationGramian()),
    "between": lambda net: Ours(net, ExactGramian(), every=FOR_EVER),  # the first step finds weights
}
PEERS: Mapping[str, Callable[[Net], Callable[[Tensor, Tensor], None]]] = {
    "TorchJD UPGrad": TorchJD,
    "K backwards, PCGrad": Backwards,
}


def make_way(name: str, net: Net) -> Callable[[Tensor, Tensor], None]:
    """One of `plain`, `OURS` and `PEERS`."""
    return Plain(net) if name == "plain" else {**OURS, **PEERS}[name](net)


class Step:
    """A way with its optimizer.

    :param net: its own; every way steps on a copy with the same weights.
    """

    def __init__(self, name: str, net: Net) -> None:
        self._way, self._optimizer = make_way(name, net), torch.optim.SGD(net.parameters(), lr=1e-4)

    def __call__(self, crops: Tensor, labels: Tensor) -> None:
        """Forward, backward, and the optimizer's step."""
        self._optimizer.zero_grad(set_to_none=True)
        self._way(crops, labels)
        self._optimizer.step()
