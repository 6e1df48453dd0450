"""The trunk f: crops [B, 1, D, H, W] -> feature map z [B, C, d, h, w].

Shape suffixes: B batch, D H W a crop's depth, height and width, C channels, d h w the map's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mtids_dist.model.blocks import ConvBlock
from mtids_dist.model.config import ModelConfig, Trunk


class SmallTrunk(nn.Module):
    """For CPUs: a convolution block of stride 2 per entry of `channels`; a crop of 32^3 leaves three of them as 4^3.

    Each stride maps n voxels of an axis to ceil(n / 2), so a depth of 1 to 3 ends as 1 with every slice in view.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = channels[-1]
        widths = [1, *channels]
        self.blocks = nn.ModuleList(ConvBlock(a, b, stride=2) for a, b in pairwise(widths))

    def forward(self, crops_B1DHW: Tensor) -> Tensor:
        """The feature map."""
        x_BCdhw = crops_B1DHW
        for index, block in enumerate(self.blocks):
            if index == 1:  # the backward of these convolutions is up to 3 times faster on a CPU with channels last
                x_BCdhw = x_BCdhw.contiguous(memory_format=torch.channels_last_3d)
            x_BCdhw = block(x_BCdhw)
        return x_BCdhw


def build_trunk(config: ModelConfig) -> nn.Module:
    """The trunk that `config` names, with its `out_channels`."""
    if config.trunk is Trunk.SMALL:
        return SmallTrunk(config.channels)
    from mtids_dist.model.resnet import ResNetTrunk  # MONAI takes seconds to import, which the small trunk need not pay

    return ResNetTrunk(config.trunk.value)
