"""Tri-planes: looking up features of 3D points on three axis-aligned planes (Chan et al., 2022, "EG3D", section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.linear import FullyConnected

Axes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

EG3D_AXES: Axes = ((0, 1), (0, 2), (2, 0))
"""World axes along the width and height of each plane, as in EG3D's released networks: xy, xz and, by a slip that their
weights have learned to live with, zx instead of a yz plane."""

COLOR_MARGIN = 0.001
"""Colours are widened a little beyond [0, 1], as in Mip-NeRF, so that the sigmoid need not saturate."""


def project_onto_planes(
    points: Float[Tensor, "batch points 3"], box_warp: float = 1.0, axes: Axes = EG3D_AXES
) -> Float[Tensor, "batch 3 points 2"]:
    """Grid coordinates (width, height) of points on each plane; the planes span [-1, 1].

    Args:
        points: world coordinates.
        box_warp: side of the cube that the planes cover, world units.
        axes: world axes along width and height of each plane.
    """
    scaled = points * (2 / box_warp)
    return torch.stack([scaled[..., pair] for pair in axes], dim=1)


def sample_planes(
    planes: Float[Tensor, "batch 3 channels height width"],
    points: Float[Tensor, "batch points 3"],
    box_warp: float = 1.0,
    axes: Axes = EG3D_AXES,
) -> Float[Tensor, "batch 3 points channels"]:
    """Bilinearly interpolated features of points on each plane; zero outside the planes."""
    grid = project_onto_planes(points, box_warp, axes).flatten(0, 1)[:, None]
    features = F.grid_sample(planes.flatten(0, 1), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return features[:, :, 0].mT.unflatten(0, (-1, 3))


class TriplaneDecoder(nn.Module):
    """EG3D's decoder: the mean of three plane features to density and colour, by one hidden softplus layer.

    Args:
        channels: channels of each plane.
        width: width of the hidden layer.
        color_channels: channels of the colour (feature channels, when a super-resolution network follows).
    """

    def __init__(self, channels: int, width: int = 64, color_channels: int = 32) -> None:
        super().__init__()
        self.hidden = FullyConnected(channels, width)
        self.output = FullyConnected(width, 1 + color_channels)

    def forward(
        self, features: Float[Tensor, "batch points channels"]
    ) -> tuple[Float[Tensor, "batch points 1"], Float[Tensor, "batch points color_channels"]]:
        """Raw density (any real number, before the renderer's softplus) and colour in [-0.001, 1.001]."""
        y = self.output(F.softplus(self.hidden(features)))
        density, color = y[..., :1], y[..., 1:]
        return density, torch.sigmoid(color) * (1 + 2 * COLOR_MARGIN) - COLOR_MARGIN
