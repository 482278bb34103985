"""Rays through the pixels of a camera, and where they meet a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.rendering.cameras import Camera


@dataclass(frozen=True)
class Rays:
    """Half-lines ``origin + distance * direction``.

    Attributes:
        origins: where the rays start, world units.
        directions: unit vectors, unless the maker says otherwise; distances are in units of their length.
    """

    origins: Float[Tensor, "batch rays 3"]
    directions: Float[Tensor, "batch rays 3"]

    def at(self, distances: Float[Tensor, "batch rays samples"]) -> Float[Tensor, "batch rays samples 3"]:
        """Points at the given distances along each ray."""
        return self.origins[:, :, None] + distances[..., None] * self.directions[:, :, None]

    def __getitem__(self, index: tuple[slice, ...]) -> Rays:
        """Part of the batch and of the rays."""
        return Rays(self.origins[index], self.directions[index])


def cast_rays(camera: Camera, resolution: int) -> Rays:
    """One ray through the centre of each pixel of square images, row by row.

    Args:
        camera: cameras of batch shape [batch].
        resolution: pixels per side.

    Returns:
        ``resolution**2`` rays per camera.
    """
    cam2world, intrinsics = camera.cam2world, camera.intrinsics
    u, v = pixel_centres(resolution).to(cam2world).unbind(dim=-1)
    fx, skew, cx = (intrinsics[:, 0, column, None] for column in range(3))
    fy, cy = intrinsics[:, 1, 1, None], intrinsics[:, 1, 2, None]
    y = (v - cy) / fy
    x = (u - cx + cy * skew / fy - skew * v / fy) / fx
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = in_camera @ cam2world[:, :3, :3].mT
    origins = cam2world[:, None, :3, 3].expand_as(directions)
    return Rays(origins, directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True))


def pixel_centres(resolution: int) -> Float[Tensor, "pixels 2"]:
    """Centres (x, y) of the pixels of a square image in units of its size, row by row."""
    centres = (torch.arange(resolution) + 0.5) / resolution
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([u.flatten(), v.flatten()], dim=-1)


def box_intersections(rays: Rays, side: float) -> tuple[Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"]]:
    """Distances at which rays enter and leave the cube of the given side around the origin.

    Returns:
        Entry and exit; -1 and -2 for a ray that misses the cube.
    """
    half = side / 2
    first, second = (-half - rays.origins) / rays.directions, (half - rays.origins) / rays.directions
    entry = torch.minimum(first, second).amax(dim=-1, keepdim=True)
    exit_ = torch.maximum(first, second).amin(dim=-1, keepdim=True)
    missed = entry > exit_
    return entry.masked_fill(missed, -1), exit_.masked_fill(missed, -2)
