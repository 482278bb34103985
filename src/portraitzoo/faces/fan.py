"""68 landmarks of a face: the face alignment network 3DFAN (Bulat and Tzimiropoulos, ICCV 2017).

The landmarks lie where those of a head in space would be seen: behind a turned head's outline too, not along it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.faces.boxes import corners, cut
from portraitzoo.faces.hourglass import HierarchicalBlock, Hourglass
from portraitzoo.layers.conv_norm import ConvNorm

INPUT_SIZE = 256
CELL = 4
"""Pixels of the input in a cell of the heatmaps."""
_REFERENCE_SIZE = 200.0
"""Side of a window whose scale is 1, pixels."""
_BOX_SIZE = 192.0
"""Width and height together of a box whose window has the scale 1. The package face-alignment has 195 here."""
_UP = 0.12
"""How far the window's centre lies above that of the box, in heights of the box."""


@dataclass(frozen=True)
class FaceWindow:
    """The square part of a picture that landmarks are looked for in.

    Attributes:
        center: of the square, pixels of the picture, y down.
        scale: of the square, in units of 200 pixels.
    """

    center: tuple[float, float]
    scale: float

    @classmethod
    def of_box(cls, box: Float[Tensor, " 4"]) -> FaceWindow:
        """The window around a box x1, y1, x2, y2.

        Raises:
            ZooError: if the box is not four finite numbers, or empty.
        """
        left, top, right, bottom = corners(box)
        width, height = right - left, bottom - top
        return cls(((left + right) / 2, (top + bottom) / 2 - _UP * height), (width + height) / _BOX_SIZE)

    @property
    def side(self) -> float:
        """Side of the square, pixels of the picture."""
        return _REFERENCE_SIZE * self.scale

    def pixels(self, points: Float[Tensor, "*batch 2"], resolution: int) -> Float[Tensor, "*batch 2"]:
        """Whole pixels of the picture, cut off towards zero, where points of the window lie.

        Args:
            points: in a grid of ``resolution`` times ``resolution`` cells over the window.
            resolution: of the grid.
        """
        corner = torch.tensor(self.center, dtype=torch.float64) - self.side / 2
        return (points.double().cpu() / resolution * self.side + corner).trunc()

    def crop(self, image: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "256 256 3"]:
        """The window as a picture; black outside ``image``.

        Raises:
            ZooError: for what is no picture, and for a window beside it or much smaller or larger.
        """
        ends = self.pixels(torch.tensor([[1.0, 1.0], [INPUT_SIZE, INPUT_SIZE]]), INPUT_SIZE)
        window = cut(image, ends.flatten())[0].cpu().contiguous()
        return torch.from_numpy(cv2.resize(window.numpy(), (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR))


def network_input(crop: UInt8[Tensor, "256 256 3"], device: torch.device) -> Float[Tensor, "1 3 256 256"]:
    """A crop as the networks take it: RGB in [0, 1]."""
    return crop.to(device).permute(2, 0, 1)[None].float() / 255


def decode(
    heatmaps: Float[Tensor, "batch landmarks size size"],
) -> tuple[Float[Tensor, "batch landmarks 2"], Float[Tensor, "batch landmarks"]]:
    """Where heatmaps are highest, and how high.

    From the highest cell the place moves a quarter of a cell towards the higher neighbour along each axis, except in
    cells at the border.

    Returns:
        Points (x, y) in cells, (0.5, 0.5) the middle of the first; and the heights.
    """
    size = heatmaps.shape[-1]
    height, index = heatmaps.flatten(2).max(dim=-1)
    x, y = index % size, index // size
    inside = (x > 0) & (x < size - 1) & (y > 0) & (y < size - 1)
    flat, middle = heatmaps.flatten(2), torch.where(inside, index, size + 1)
    steps = []
    for neighbour in (1, size):
        ahead, behind = (flat.gather(2, (middle + sign * neighbour)[..., None])[..., 0] for sign in (1, -1))
        steps.append(torch.where(inside, 0.25 * (ahead - behind).sign(), 0.0))
    return torch.stack([x, y], dim=-1) + 0.5 + torch.stack(steps, dim=-1), height


class Stack(nn.Module):
    """An hourglass, heatmaps of what it found, and the input of the next.

    Args:
        width: channels.
        landmarks: heatmaps.
        last: whether there is no next.
    """

    def __init__(self, width: int, landmarks: int, last: bool) -> None:
        super().__init__()
        self.hourglass = Hourglass(width, "average", "nearest")
        self.block = HierarchicalBlock(width, width)
        self.features = ConvNorm(nn.Conv2d(width, width, 1))
        self.maps = nn.Conv2d(width, landmarks, 1)
        self.from_features = None if last else nn.Conv2d(width, width, 1)
        self.from_maps = None if last else nn.Conv2d(landmarks, width, 1)

    def forward(
        self, x: Float[Tensor, "batch width rows columns"]
    ) -> tuple[Float[Tensor, "batch width rows columns"], Float[Tensor, "batch landmarks rows columns"]]:
        """The next input (unchanged after the last stack) and the heatmaps."""
        features = F.relu(self.features(self.block(self.hourglass(x))), inplace=True)
        maps = self.maps(features)
        if self.from_features is not None and self.from_maps is not None:
            x = x + self.from_features(features) + self.from_maps(maps)
        return x, maps


class FAN(nn.Module):
    """Stacked hourglasses; the published network has four.

    Args:
        stacks: how many.
        width: channels of the hourglasses.
        stem: channels of the first convolution.
        landmarks: heatmaps.
    """

    def __init__(self, stacks: int = 4, width: int = 256, stem: int = 64, landmarks: int = 68) -> None:
        super().__init__()
        self.stem = ConvNorm(nn.Conv2d(3, stem, 7, 2, 3))
        self.block1 = HierarchicalBlock(stem, width // 2)
        self.block2 = HierarchicalBlock(width // 2, width // 2)
        self.block3 = HierarchicalBlock(width // 2, width)
        self.stacks = nn.ModuleList(Stack(width, landmarks, index == stacks - 1) for index in range(stacks))

    def forward(self, images: Float[Tensor, "batch 3 256 256"]) -> Float[Tensor, "batch landmarks 64 64"]:
        """Heatmaps of the last stack for pictures of windows, RGB in [0, 1]."""
        x = F.avg_pool2d(self.block1(F.relu(self.stem(images), inplace=True)), 2)
        x = self.block3(self.block2(x))
        maps = x
        for stack in self.stacks:
            x, maps = stack(x)
        return maps

    @torch.no_grad()
    def landmarks(self, image: UInt8[Tensor, "height width 3"], box: Float[Tensor, " 4"]) -> Float[Tensor, "68 2"]:
        """Landmarks of the face in a box, in iBUG's order.

        Args:
            image: RGB.
            box: x1, y1, x2, y2 in pixels.

        Returns:
            Whole pixels (x, y), float64, y down; cut off towards zero, as files made with this network have them.

        Raises:
            ZooError: for what is no picture or no box, and for a box that is empty or lies beside the picture.
        """
        window = FaceWindow.of_box(box)
        device = cast(Tensor, self.stem.conv.weight).device
        maps = self(network_input(window.crop(image), device))
        return window.pixels(decode(maps)[0][0], maps.shape[-1])
