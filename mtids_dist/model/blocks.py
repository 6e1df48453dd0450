"""The building block of the small trunk, the experts and the adaptors.

Shape suffixes: B batch, C channels, d h w a feature map's depth, height and width.
"""

from __future__ import annotations

from torch import Tensor, nn

from mtids_dist.model.convolution import Conv3d

CHANNELS_PER_GROUP = 8
"""Group norm sees one sample only, so N ranks give what one rank gives; every width is a multiple of this."""


class ConvBlock(nn.Module):
    """Convolution [B, C_in, d, h, w] -> [B, C_out, d', h', w'], then group norm and ReLU; any depth >= 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(out_channels // CHANNELS_PER_GROUP, out_channels)

    def forward(self, x_BCdhw: Tensor) -> Tensor:
        """The block's output map."""
        return nn.functional.relu(self.norm(self.conv(x_BCdhw)))


def pool(z_BCdhw: Tensor) -> Tensor:
    """Global average [B, C] of a feature map."""
    return z_BCdhw.mean(dim=(2, 3, 4))
