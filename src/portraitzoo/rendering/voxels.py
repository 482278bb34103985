"""Values on a regular grid of points, and in between."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cell_centres(resolution: int, side: float) -> Float[Tensor, "points 3"]:
    """Centres of the cells of a cube around the origin, z running fastest.

    Args:
        resolution: cells along each axis.
        side: of the cube.
    """
    axis = ((torch.arange(resolution) + 0.5) / resolution - 0.5) * side
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)


def interpolate_cells(
    values: Float[Tensor, "batch channels x y z"], points: Float[Tensor, "batch points 3"], side: float
) -> Float[Tensor, "batch points channels"]:
    """Trilinear interpolation between values at :func:`cell_centres`; around those they fade to zero within one cell.

    Args:
        values: as many along each axis.
        points: where they are wanted; no gradients flow to them on a CPU.
        side: of the cube.
    """
    if values.device.type != "cpu" or (torch.is_grad_enabled() and (values.requires_grad or points.requires_grad)):
        # Grid sampling counts axes from the innermost one, in units of the outermost centres' distance.
        inner = side * (1 - 1 / values.shape[-1]) / 2
        grid = points.flip(-1)[:, None, None] / inner
        return F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, :, 0, 0].mT
    return _gathered(values, points, side)


def _gathered(
    values: Float[Tensor, "batch channels x y z"], points: Float[Tensor, "batch points 3"], side: float
) -> Float[Tensor, "batch points channels"]:
    """:func:`interpolate_cells` on a CPU: each point is a weighted sum of eight rows of a table.

    PyTorch's grid sampling of volumes uses one core for each volume there.
    """
    size = values.shape[-1]
    # Summing rows is several times slower where their numbers are not side by side.
    table = values.permute(0, 2, 3, 4, 1).reshape(-1, values.shape[1]).contiguous()
    position = points.mT.contiguous() * (size / side) + (size - 1) / 2
    below = position.floor()
    share = position - below
    neighbours = []
    for cell, weight in ((below, 1 - share), (below + 1, share)):
        inside = (cell >= 0) & (cell < size)
        neighbours.append((cell.clamp(0, size - 1).int(), weight * inside))
    first = torch.arange(len(values), dtype=torch.int32)[:, None] * size
    bags = torch.empty(*points.shape[:2], 8, dtype=torch.int32)
    shares = torch.empty(bags.shape, dtype=position.dtype)
    for corner, ((x, in_x), (y, in_y), (z, in_z)) in enumerate(product(neighbours, repeat=3)):
        torch.add(((first + x[:, 0]) * size + y[:, 1]) * size, z[:, 2], out=bags[..., corner])
        torch.mul(in_x[:, 0] * in_y[:, 1], in_z[:, 2], out=shares[..., corner])
    bags, shares = bags.flatten(0, 1), shares.flatten(0, 1)
    return F.embedding_bag(bags, table, mode="sum", per_sample_weights=shares).unflatten(0, points.shape[:2])
