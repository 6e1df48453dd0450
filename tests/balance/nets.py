"""A small network with a border, for the balancer's tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SEED = 5
TASKS = ("a", "b", "c")
ROWS = 48


class Net(nn.Module):
    """A trunk and a head a task; the border is the trunk's output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.trunk = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(8, 3) for task in TASKS})

    def losses_and_border(self, x: Tensor, y: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor]]:
        z = self.trunk(x)
        losses = {task: nn.functional.cross_entropy(head(z), y[:, k]) for k, (task, head) in enumerate(self.heads.items())}
        return losses, (z,)

    def losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self.losses_and_border(x, y)[0]

    def shared_gradient(self) -> Tensor:
        return torch.cat([p.grad.reshape(-1) for p in self.trunk.parameters()]).double()

    def gradients(self) -> Tensor:
        return torch.cat([p.grad.reshape(-1) for p in self.parameters()])


def batch(step: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SEED + step)
    return torch.randn(ROWS, 6, generator=generator), torch.randint(0, 3, (ROWS, len(TASKS)), generator=generator)


def task_gradients(net: Net, step: int = 0) -> Tensor:
    """J [K, N] on the trunk."""
    losses = net.losses(*batch(step))
    rows = [torch.autograd.grad(loss, list(net.trunk.parameters()), retain_graph=True) for loss in losses.values()]
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows]).double()
