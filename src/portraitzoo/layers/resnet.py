"""Residual networks as torchvision builds them (He et al., CVPR 2016), for networks that only measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.conv_norm import ConvNorm

BlockKind = Literal["basic", "bottleneck"]
BOTTLENECK_EXPANSION = 4


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> ConvNorm:
    """Convolution that keeps the size (divided by ``stride``), and batch norm."""
    return ConvNorm(nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first of them strided, and a shortcut.

    Args:
        in_channels: of the input.
        width: of both convolutions, and so of the output.
        stride: of the first.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = conv(in_channels, width, 3, stride)
        self.conv2 = conv(width, width, 3)
        self.shortcut = _shortcut(in_channels, self.out_channels, stride)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Apply the block."""
        residual = self.conv2(F.relu(self.conv1(x), inplace=True))
        return residual.add_(x if self.shortcut is None else self.shortcut(x)).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the second of them strided ("v1.5"), and a shortcut.

    Args:
        in_channels: of the input.
        width: of the first two convolutions; the output has four times as many channels.
        stride: of the second.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.out_channels = BOTTLENECK_EXPANSION * width
        self.conv1 = conv(in_channels, width, 1)
        self.conv2 = conv(width, width, 3, stride)
        self.conv3 = conv(width, self.out_channels, 1)
        self.shortcut = _shortcut(in_channels, self.out_channels, stride)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Apply the block."""
        seen = F.relu(self.conv2(F.relu(self.conv1(x), inplace=True)), inplace=True)
        return self.conv3(seen).add_(x if self.shortcut is None else self.shortcut(x)).relu_()


def _shortcut(in_channels: int, out_channels: int, stride: int) -> ConvNorm | None:
    return None if stride == 1 and in_channels == out_channels else conv(in_channels, out_channels, 1, stride)


class ResNet(nn.Module):
    """A residual network up to its last stage, without pooling and classes.

    Args:
        block: kind of the blocks.
        depths: blocks of each stage; (3, 4, 6, 3) with bottlenecks is ResNet-50.
        widths: width of each stage's blocks.
        stem: channels of the first convolution.
        in_channels: of the input.

    Attributes:
        out_channels: of each stage's output.
    """

    def __init__(
        self,
        block: BlockKind,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        kind = BasicBlock if block == "basic" else Bottleneck
        self.stem = conv(in_channels, stem, 7, 2)
        self.stages = nn.ModuleList()
        self.out_channels: list[int] = []
        channels = stem
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for place in range(depth):
                made = kind(channels, width, stride=2 if index and not place else 1)
                channels = made.out_channels
                blocks.append(made)
            self.stages.append(nn.Sequential(*blocks))
            self.out_channels.append(channels)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Outputs of all stages, at 1/4, 1/8, 1/16 and 1/32 of the input's size."""
        x = F.max_pool2d(F.relu(self.stem(x), inplace=True), 3, 2, 1)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs
