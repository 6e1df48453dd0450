"""The networks that are measured: a shared trunk and a linear head a task, so that nearly all parameters are shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn

from mtids_dist.model import MTIDS
from mtids_dist.model.resnet import GROUP_NORM

CLASSES = 4
WIDTHS = [24, 48, 96, 192]
"""Of the small ResNet's layers."""


class SmallResNet(ResNet):  # type: ignore[misc]  # MONAI is untyped
    """MONAI's ResNet-10 with three eighths of its widths: 2 million parameters."""

    def __init__(self) -> None:
        settings = {"n_input_channels": 1, "conv1_t_stride": 2, "feed_forward": False, "norm": GROUP_NORM}
        super().__init__(ResNetBlock, [1, 1, 1, 1], WIDTHS, **settings)
        self.out_channels = WIDTHS[-1]

    def _make_layer(self, *args: Any, **settings: Any) -> nn.Sequential:
        return super()._make_layer(*args, **{**settings, "norm": GROUP_NORM})  # type: ignore[no-any-return]

    def forward(self, crops: Tensor) -> Tensor:
        """The feature map."""
        x: Tensor = self.maxpool(self.act(self.bn1(self.conv1(crops))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x


TRUNKS: Mapping[str, Callable[[], nn.Module]] = {
    "demo": lambda: MTIDS({"one": CLASSES}, routing="hard", trunk="small", channels=(16, 32, 64)).trunk,
    "small_resnet": SmallResNet,
    "resnet18": lambda: MTIDS({"one": CLASSES}, routing="hard", trunk="resnet18").trunk,
}
"""By name: the one of configs/demo.yaml (70 thousand parameters), a small ResNet (2 million), MONAI's ResNet-18 (33 million)."""


class Net(nn.Module):
    """K classifiers on one trunk.

    :param trunk: one of `TRUNKS`.
    """

    def __init__(self, trunk: str, tasks: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = TRUNKS[trunk]()
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
