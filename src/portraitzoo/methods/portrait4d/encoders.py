"""What Portrait4D sees in a photo: its features, its details, its background (Deng et al., CVPR 2024, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.convolution import Convolution

IMAGE_CHANNELS = 5
"""Red, green, blue, and where a pixel is."""
LEAKY_SLOPE = 0.01


def with_coordinates(image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 5 height width"]:
    """The image and, as further channels, each pixel's x and y; -1 at the first pixel, 1 at the last."""
    height, width = image.shape[-2:]
    x = torch.linspace(-1, 1, width, dtype=image.dtype, device=image.device).expand(height, -1)
    y = torch.linspace(-1, 1, height, dtype=image.dtype, device=image.device)[:, None].expand(-1, width)
    return torch.cat([image, torch.stack([x, y]).expand(len(image), -1, -1, -1)], dim=1)


def leaky_relu(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """Leaky ReLU of slope 0.01. Without gradients ``x`` is overwritten, so the caller must own it: fresh memory of that
    size costs more time than the arithmetic."""
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, as in ResNet-34, without normalisation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: 2 halves the size.
        dilation: of both convolutions, the first one of a stage included.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = None if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Apply the block."""
        kept = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.conv2(F.relu(self.conv1(x))) + kept)


class ContextPyramid(nn.Module):
    """DeepLabV3's atrous pyramid without normalisation (Chen et al., 2017, section 3.3).

    A 1 x 1 convolution, one 3 x 3 convolution per rate and the mean of the whole image, side by side, then mixed.

    Args:
        in_channels: channels of the input.
        channels: channels of each branch and of the output.
        rates: dilations.
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(in_channels, channels, 1, bias=False)])
        for rate in rates:
            self.branches.append(nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate, bias=False))
        self.pooled = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.mix = nn.Conv2d((2 + len(rates)) * channels, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch channels _ _"]:
        """Features of the same size."""
        parts = [F.relu(branch(x)) for branch in self.branches]
        whole = F.relu(self.pooled(x.mean(dim=(2, 3), keepdim=True)))
        return F.relu(self.mix(torch.cat([*parts, whole.expand(-1, -1, *x.shape[-2:])], dim=1)))


class GlobalEncoder(nn.Module):
    """Features of an eighth of the image's size: a dilated ResNet without normalisation, and DeepLabV3's head.

    Args:
        stem: channels of the first convolution.
        widths: channels of the four stages, of which the last two are dilated instead of halving the size.
        depths: blocks of each stage.
        channels: channels of the result.
        rates: dilations of the pyramid.
    """

    def __init__(
        self, stem: int, widths: Sequence[int], depths: Sequence[int], channels: int, rates: Sequence[int]
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(IMAGE_CHANNELS, stem, 7, stride=2, padding=3, bias=False)
        self.stages = nn.ModuleDict()
        before = stem
        for number, (width, depth, stride, dilation) in enumerate(
            zip(widths, depths, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), 1
        ):
            ends = [before, *(width for _ in range(depth))]
            blocks = [
                ResidualBlock(one, other, stride if index == 0 else 1, dilation)
                for index, (one, other) in enumerate(pairwise(ends))
            ]
            self.stages[f"layer{number}"] = nn.Sequential(*blocks)
            before = width
        self.pyramid = ContextPyramid(before, channels, rates)
        self.output = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, image: Float[Tensor, "batch 5 height width"]) -> Float[Tensor, "batch channels height/8 width/8"]:
        """Features of images with coordinates."""
        x = F.max_pool2d(F.relu(self.stem(image)), 3, stride=2, padding=1)
        for stage in self.stages.values():
            x = stage(x)
        return F.relu(self.output(self.pyramid(x)))


class DetailEncoder(nn.Module):
    """Features of half the image's size that keep what is fine: five convolutions.

    Args:
        channels: of the first convolution, and of the others.
    """

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        first, others = channels
        self.convs = nn.ModuleList([nn.Conv2d(IMAGE_CHANNELS, first, 7, stride=2, padding=3)])
        for before in (first, others, others, others):
            self.convs.append(Convolution(before, others))

    def forward(self, image: Float[Tensor, "batch 5 height width"]) -> Float[Tensor, "batch channels height/2 width/2"]:
        """Features of images with coordinates."""
        x = image
        for conv in self.convs:
            x = leaky_relu(conv(x))
        return x


class Halving(nn.Module):
    """Step down of the background network: convolution, activation, convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Convolution(in_channels, in_channels)
        self.halve = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Features of half the size."""
        return self.halve(leaky_relu(self.conv(x)))


class Doubling(nn.Module):
    """Step up of the background network: convolution, activation, pixels doubled, convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Convolution(in_channels, out_channels)
        self.smooth = Convolution(out_channels, out_channels)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Features of twice the size."""
        return self.smooth(F.interpolate(leaky_relu(self.conv(x)), scale_factor=2))


class BackgroundNetwork(nn.Module):
    """U-Net that paints what is behind the head, in the feature space of the renderer.

    Args:
        widths: channels at a half, a fourth, an eighth ... of the image's size.
        out_channels: channels of the result.
    """

    def __init__(self, widths: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(IMAGE_CHANNELS, widths[0], 3, stride=2, padding=1)
        self.down = nn.ModuleDict(
            {str(level): Halving(one, other) for level, (one, other) in enumerate(pairwise(widths), 1)}
        )
        self.middle = Convolution(widths[-1], widths[-1])
        self.up = nn.ModuleDict()
        before = widths[-1]
        for level, beside in enumerate(reversed(widths), 1):
            after = widths[max(len(widths) - level - 1, 0)]
            self.up[str(level)] = Doubling(before + beside, after)
            before = after
        self.output = Convolution(before, out_channels)

    def forward(self, image: Float[Tensor, "batch 5 height width"]) -> Float[Tensor, "batch channels height width"]:
        """Logits of the background's features, from images with coordinates."""
        seen = [leaky_relu(self.input(image))]
        for step in self.down.values():
            seen.append(step(seen[-1]))
        x = leaky_relu(self.middle(seen[-1]))
        for step in self.up.values():
            x = step(torch.cat([x, seen.pop()], dim=1))
        return self.output(x)
