"""What face alignment networks are built of (Bulat and Tzimiropoulos, ICCV 2017, section 3; Newell et al., ECCV 2016).

Norms go by their stored statistics: these networks only measure.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.conv_norm import FixedNorm

HOURGLASS_DEPTH = 4
Pooling = Literal["average", "max"]
Upsampling = Literal["nearest", "bilinear"]


class HierarchicalBlock(nn.Module):
    """Three pre-activated 3 x 3 convolutions, each on the last one's result, all of them kept (Bulat and Tzimiropoulos,
    2017, figure 2).

    Args:
        in_channels: channels of the input.
        out_channels: of the output: a half from the first convolution, a fourth from each of the others.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.norm1, self.conv1 = FixedNorm(in_channels), _conv(in_channels, half)
        self.norm2, self.conv2 = FixedNorm(half), _conv(half, quarter)
        self.norm3, self.conv3 = FixedNorm(quarter), _conv(quarter, quarter)
        self.shortcut: nn.Sequential | None = None
        if in_channels != out_channels:
            last = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(FixedNorm(in_channels), nn.ReLU(inplace=True), last)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Apply the block."""
        first = self.conv1(F.relu(self.norm1(x), inplace=True))
        second = self.conv2(F.relu(self.norm2(first), inplace=True))
        third = self.conv3(F.relu(self.norm3(second), inplace=True))
        return torch.cat([first, second, third], dim=1).add_(x if self.shortcut is None else self.shortcut(x))


class Hourglass(nn.Module):
    """Blocks at this size and, within, an hourglass at half of it (Newell et al., 2016, section 3.1).

    Args:
        width: channels.
        pooling: how pictures are halved.
        upsampling: how they are doubled again.
        depth: number of halvings.
    """

    def __init__(self, width: int, pooling: Pooling, upsampling: Upsampling, depth: int = HOURGLASS_DEPTH) -> None:
        super().__init__()
        self.beside, self.before, self.after = (HierarchicalBlock(width, width) for _ in range(3))
        self.inner: nn.Module = HierarchicalBlock(width, width)
        if depth > 1:
            self.inner = Hourglass(width, pooling, upsampling, depth - 1)
        self.pool = F.avg_pool2d if pooling == "average" else F.max_pool2d
        self.upsampling = upsampling

    def forward(self, x: Float[Tensor, "batch width height width"]) -> Float[Tensor, "batch width height width"]:
        """Apply the hourglass."""
        low = self.after(self.inner(self.before(self.pool(x, 2))))
        return self.beside(x).add_(F.interpolate(low, x.shape[-2:], mode=self.upsampling))


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
