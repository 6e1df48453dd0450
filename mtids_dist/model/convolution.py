"""Convolutions whose gradients are right in bfloat16, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

Size = int | tuple[int, int, int]


def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Size = 1, padding: Size = 0) -> Tensor:
    """As `torch.nn.functional.conv3d`; on a CPU bfloat16 is multiplied in float32, and what comes out rounded.

    torch 2.13's own kernel there (oneDNN) leaves numbers of a weight's gradient unwritten where the map is 2x2x2, which is what a
    3-D ResNet makes of a crop of 64^3: whatever lay in that memory is then trained on.
    """
    if x.device.type == "cpu" and x.dtype is torch.bfloat16:
        wide_bias = None if bias is None else bias.float()
        return F.conv3d(x.float(), weight.float(), wide_bias, stride=stride, padding=padding).to(x.dtype)
    return F.conv3d(x, weight, bias, stride=stride, padding=padding)


class Conv3d(nn.Conv3d):
    """torch's module, by `conv3d`; not dilated, not grouped, padded with zeros."""

    def forward(self, input: Tensor) -> Tensor:
        """The convolved map."""
        return conv3d(input, self.weight, self.bias, stride=self.stride, padding=self.padding)  # type: ignore[arg-type]  # torch allows a word, too


def use_own_convolutions(network: nn.Module) -> None:
    """Puts a `Conv3d` with the same parameters in the place of each of torch's in somebody else's network."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv3d:
                setattr(parent, name, _own(child))


def _own(conv: nn.Conv3d) -> Conv3d:
    assert set(conv.dilation) == {1}
    assert conv.groups == 1
    assert isinstance(conv.padding, tuple)
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    with torch.device("meta"):
        own = Conv3d(conv.in_channels, conv.out_channels, kernel, stride=stride, padding=padding, bias=conv.bias is not None)  # type: ignore[arg-type]
    own.weight, own.bias = conv.weight, conv.bias
    return own
