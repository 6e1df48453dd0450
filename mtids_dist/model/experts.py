"""Experts S_m and P^k_j, the adaptors A_k that give a task its own context, and the heads.

Shape suffixes: B batch, C channels of the trunk's map, d h w its size, W width of an expert, A width of a task's context.
"""

from __future__ import annotations

from torch import Tensor, nn

from mtids_dist.model.blocks import ConvBlock, pool


class Expert(nn.Module):
    """A convolution block of 3x3x3 over the trunk's map, averaged: [B, C, d, h, w] -> [B, W]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.block = ConvBlock(in_channels, width)

    def forward(self, z_BCdhw: Tensor) -> Tensor:
        """What this expert says of each sample, [B, W]."""
        return pool(self.block(z_BCdhw))


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
