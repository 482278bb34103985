"""Depth of 68 landmarks: the second network of 3DFAN (Bulat and Tzimiropoulos, ICCV 2017, section 6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.faces.fan import CELL, FAN, INPUT_SIZE, FaceWindow, decode, network_input
from portraitzoo.layers.resnet import ResNet

SIGMA = 2
_KERNEL = 6 * SIGMA + 1
_WIDTH = 0.25
"""Standard deviation of the drawn Gaussians, in lengths of their kernel."""
_SEEN = 7
"""Rows and columns of the last 8 x 8 map that count: the network learnt with a pooling that leaves out the eighth."""


def gaussians(points: Float[Tensor, "*batch 2"], size: int) -> Float[Tensor, "*batch size size"]:
    """A picture of a Gaussian for each point, 1 at its highest.

    They are drawn as the network learnt them: at whole pixels, and where one is cut by the left or the upper border it
    comes up to two pixels too far left or up.

    Args:
        points: x and y in pixels, (1, 1) the first.
        size: side of the pictures.
    """
    # Products of a row and a column. Pixels and places of the kernel count from 1.
    first, last = (points - 3 * SIGMA).floor(), (points + 3 * SIGMA).floor().clamp(max=size)
    pixel = torch.arange(1, size + 1).to(points)
    place = pixel - first.clamp(min=1)[..., None] + (-first).clamp(min=1)[..., None]
    inside = (pixel >= first.clamp(min=1)[..., None]) & (pixel <= last[..., None])
    profile = torch.exp(-0.5 * ((place - (_KERNEL + 1) / 2) / (_WIDTH * _KERNEL)).square()) * inside
    return profile[..., 1, :, None] * profile[..., 0, None, :]


class FanDepth(nn.Module):
    """A residual network that looks at a face and at pictures of its landmarks; ResNet-152 unless told otherwise.

    Args:
        depths: blocks of each stage.
        widths: width of each stage's blocks.
        landmarks: how many.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 8, 36, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        landmarks: int = 68,
    ) -> None:
        super().__init__()
        self.backbone = ResNet("bottleneck", depths, widths, in_channels=3 + landmarks)
        self.fc = nn.Linear(self.backbone.out_channels[-1], landmarks)

    def forward(
        self, images: Float[Tensor, "batch 3 256 256"], points: Float[Tensor, "batch landmarks 2"]
    ) -> Float[Tensor, "batch landmarks"]:
        """Depths of landmarks, pixels of the crop, larger is nearer.

        Args:
            images: of windows, RGB in [0, 1].
            points: landmarks in cells of the heatmaps, as :func:`~portraitzoo.faces.fan.decode` gives them.
        """
        size = images.shape[-1]
        drawn = gaussians(points * CELL, size) * (points > 0).all(-1)[..., None, None]
        features = self.backbone(torch.cat([images, drawn.to(images)], dim=1))[-1]
        return self.fc(features[:, :, :_SEEN, :_SEEN].mean((2, 3)))


@torch.no_grad()
def landmarks3d(
    image: UInt8[Tensor, "height width 3"], box: Float[Tensor, " 4"], network: FAN, depth: FanDepth
) -> Float[Tensor, "68 3"]:
    """Landmarks of the face in a box with their depth.

    Args:
        image: RGB.
        box: x1, y1, x2, y2 in pixels.
        network: finds the landmarks.
        depth: tells their depth, on the same device.

    Returns:
        x and y in whole pixels as :meth:`~portraitzoo.faces.fan.FAN.landmarks` gives them; z in pixels too, relative.

    Raises:
        ZooError: as :meth:`~portraitzoo.faces.fan.FAN.landmarks`.
    """
    window = FaceWindow.of_box(box)
    images = network_input(window.crop(image), depth.fc.weight.device)
    maps = network(images)
    points = decode(maps)[0]
    z = depth(images, points)[0].double().cpu() * (window.side / INPUT_SIZE)
    return torch.cat([window.pixels(points[0], maps.shape[-1]), z[:, None]], dim=1)
