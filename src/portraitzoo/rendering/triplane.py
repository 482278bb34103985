"""Tri-planes: looking up features of 3D points on three axis-aligned planes (Chan et al., 2022, "EG3D", section 3)."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.linear import FullyConnected

Axes = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

EG3D_AXES: Axes = ((0, 1), (0, 2), (2, 0))
"""World axes along the width and height of each plane, as in EG3D's released networks: xy, xz and, by a slip that their
weights have learned to live with, zx instead of a yz plane."""

CYCLIC_AXES: Axes = ((0, 1), (1, 2), (2, 0))
"""Planes xy, yz and zx, of GenHead and Portrait4D."""

COLOR_MARGIN = 0.001
"""Colours are widened a little beyond [0, 1], as in Mip-NeRF, so that the sigmoid need not saturate."""

PIECE = 4096
"""Points decoded at a time on a CPU: their hidden layer stays in the cache."""


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


def triplane_features(
    planes: Float[Tensor, "batch 3 channels size size"],
    points: Float[Tensor, "batch points 3"],
    box_warp: float = 1.0,
    axes: Axes = EG3D_AXES,
) -> Float[Tensor, "batch points channels"]:
    """Mean over the planes of :func:`sample_planes` (EG3D, section 3.2; the sum there)."""
    if torch.is_grad_enabled() or planes.device.type != "cpu" or planes.dtype != torch.float32:
        return sample_planes(planes, points, box_warp, axes).mean(dim=1)
    return _gathered_features(planes, points, box_warp, axes)


def _gathered_features(
    planes: Float[Tensor, "batch 3 channels size size"],
    points: Float[Tensor, "batch points 3"],
    box_warp: float,
    axes: Axes,
) -> Float[Tensor, "batch points channels"]:
    """:func:`triplane_features` on a CPU: each point is a weighted sum of twelve rows of a table of texels.

    Texels with their channels side by side are found with one access each, where grid sampling needs one per channel.
    """
    size = planes.shape[-1]
    table = planes.permute(0, 3, 4, 1, 2).reshape(-1, planes.shape[2])  # no copy if channels are innermost already
    position = (points.mT.contiguous() * (2 / box_warp) + 1) * (size / 2) - 0.5
    below = position.floor()
    share = position - below
    # For each world axis, the two nearest texels and their shares; a texel outside the plane has none.
    neighbours = []
    for texel, weight in ((below, 1 - share), (below + 1, share)):
        inside = (texel >= 0) & (texel < size)
        neighbours.append((texel.clamp(0, size - 1).int(), weight * inside))
    first_row = torch.arange(len(planes), dtype=torch.int32)[:, None] * size
    bags = torch.empty(*points.shape[:2], 12, dtype=torch.int32)
    shares = torch.empty(bags.shape, dtype=planes.dtype)
    corners = product(enumerate(axes), neighbours, neighbours)
    for corner, ((plane, (column_axis, row_axis)), (row, in_row), (column, in_column)) in enumerate(corners):
        texel = (first_row + row[:, row_axis]) * size + column[:, column_axis]
        torch.add(texel * 3, plane, out=bags[..., corner])
        torch.mul(in_row[:, row_axis] / 3, in_column[:, column_axis], out=shares[..., corner])
    bags, shares = bags.flatten(0, 1), shares.flatten(0, 1)
    return F.embedding_bag(bags, table, mode="sum", per_sample_weights=shares).unflatten(0, points.shape[:2])


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
        if torch.is_grad_enabled() or features.device.type != "cpu":
            return self._decode(features)
        density, color = (
            features.new_empty(*features.shape[:2], channels) for channels in (1, len(self.output.bias) - 1)
        )
        pieces = (whole.split(PIECE, dim=1) for whole in (features, density, color))
        for part, density_part, color_part in zip(*pieces, strict=True):
            density_part[:], color_part[:] = self._decode(part)
        return density, color

    def _decode(
        self, features: Float[Tensor, "batch points channels"]
    ) -> tuple[Float[Tensor, "batch points 1"], Float[Tensor, "batch points color_channels"]]:
        y = self.output(F.softplus(self.hidden(features)))
        density, color = y[..., :1], y[..., 1:]
        return density, torch.sigmoid(color) * (1 + 2 * COLOR_MARGIN) - COLOR_MARGIN
