"""The networks that are measured: a shared trunk and a linear head a task, so that nearly all parameters are shared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mtids_dist.model import MTIDS

CLASSES = 4
CHANNELS = {"demo": (16, 32, 64), "million": (64, 128, 256)}
"""Of the small trunk: as in configs/demo.yaml, and with 1.1 million parameters."""


class Net(nn.Module):
    """K classifiers on one trunk.

    :param trunk: demo | million | resnet18 (MONAI's, 33 million parameters).
    """

    def __init__(self, trunk: str, tasks: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        settings = {"trunk": "small", "channels": CHANNELS[trunk]} if trunk in CHANNELS else {"trunk": trunk}
        self.trunk = MTIDS({"one": CLASSES}, routing="hard", **settings).trunk
        self.heads = nn.ModuleList(nn.Linear(self.trunk.out_channels, CLASSES) for _ in range(tasks))

    def forward(self, crops: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits of every task, and the border tensor."""
        border = self.trunk(crops)
        pooled = border.mean(dim=(2, 3, 4))
        return [head(pooled) for head in self.heads], border

    def losses(self, crops: Tensor, labels: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
        """{task: loss} and the border tensor."""
        logits, border = self(crops)
        return {f"task {k}": nn.functional.cross_entropy(z, labels[:, k]) for k, z in enumerate(logits)}, border

    @property
    def shared_bytes(self) -> int:
        """Of the trunk's parameters."""
        return sum(p.numel() * p.element_size() for p in self.trunk.parameters())


def batch(rows: int, side: int, tasks: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise crops [rows, 1, side, side, side] with labels [rows, tasks]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 1, side, side, side, generator=generator), torch.randint(
        0, CLASSES, (rows, tasks), generator=generator
    )
