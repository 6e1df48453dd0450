"""Experts S_m and P^k_j, the adaptors A_k that give a task its own context, and the heads.

Shape suffixes: B batch, C channels of the trunk's map, d h w its size, E experts of one owner, W width of an expert, A width of
a task's context.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtids_dist.model.blocks import CHANNELS_PER_GROUP, ConvBlock, pool
from mtids_dist.model.convolution import conv3d

KERNEL = 3


class Experts(nn.Module):
    """All experts of one owner, in one call: [B, C, d, h, w] -> [B, E, W].

    Each is a 3x3x3 convolution over the trunk's map, group norm and ReLU, averaged over the map. Their channels lie side by side
    in one convolution, and no group of the norm reaches over two experts, so what each gives is what it would give alone.

    Expert e is row e of `weight` [E, W, C, 3, 3, 3], `norm_weight` and `norm_bias` [E, W]. Without experts there are none.
    """

    def __init__(self, count: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.count, self.width = count, width
        self.weight = self.norm_weight = self.norm_bias = None
        if count:
            self.weight = nn.Parameter(torch.empty(count, width, in_channels, KERNEL, KERNEL, KERNEL))
            self.norm_weight = nn.Parameter(torch.ones(count, width))
            self.norm_bias = nn.Parameter(torch.zeros(count, width))
            for of_one in self.weight:
                nn.init.kaiming_uniform_(of_one, a=math.sqrt(5))  # as torch's own convolutions begin

    def __len__(self) -> int:
        return self.count

    def forward(self, z_BCdhw: Tensor) -> Tensor:
        """What each expert says of each sample, [B, E, W]."""
        if self.weight is None or self.norm_weight is None or self.norm_bias is None:
            return z_BCdhw.new_empty(len(z_BCdhw), 0, self.width)
        return side_by_side(z_BCdhw, self.weight, self.norm_weight, self.norm_bias)


def side_by_side(z_BCdhw: Tensor, weight_EWC333: Tensor, norm_weight_EW: Tensor, norm_bias_EW: Tensor) -> Tensor:
    """What experts with these parameters say of each sample, [B, E, W]."""
    count, width = norm_weight_EW.shape
    y_BFdhw = conv3d(z_BCdhw, weight_EWC333.flatten(0, 1), padding=KERNEL // 2)
    groups = count * width // CHANNELS_PER_GROUP
    y_BFdhw = nn.functional.group_norm(y_BFdhw, groups, norm_weight_EW.flatten(), norm_bias_EW.flatten())
    return pool(nn.functional.relu(y_BFdhw)).view(-1, count, width)


class Adaptor(nn.Module):
    """A_k: a 1x1x1 convolution block, averaged to the task's context c^k: [B, C, d, h, w] -> [B, A]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.block = ConvBlock(in_channels, width, kernel=1)

    def forward(self, z_BCdhw: Tensor) -> Tensor:
        """The context of this adaptor's task, [B, A]."""
        return pool(self.block(z_BCdhw))


class Head(nn.Module):
    """Features [B, W] -> logits [B, classes]."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, h_BW: Tensor) -> Tensor:
        """The task's logits."""
        logits: Tensor = self.linear(self.dropout(h_BW))
        return logits
