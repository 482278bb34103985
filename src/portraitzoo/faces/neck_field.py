"""Taking the turn of the neck out of space: points around a posed head to where they are with a straight neck.

A point moves with the closest face of the decimated head. That is found out on two grids only and interpolated
(Portrait4D, section 3.2; Portrait4D's and GenHead's deformation of the head pose).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.rendering.closest import closest_faces, face_normals, plane_coordinates
from portraitzoo.rendering.voxels import cell_centres, interpolate_cells

MIN_AREA = 5e-3
"""Smaller faces count as their edges; the released networks were trained so."""
SHARPNESS = 1000.0
NEAR = 3e-3
"""Squared distance within which points follow the fine grid alone."""
FINE, COARSE = 24, 8


@dataclass(frozen=True)
class NeckField:
    """Offsets towards the head with a straight neck.

    Attributes:
        fine: offset x, y, z and squared distance to the head on a grid of 24^3.
        coarse: smoothed offsets on a grid of 8^3, for points far away.
        side: of the cube of the grids.
        straight: whether no neck is turned, so that points stay where they are.
    """

    fine: Float[Tensor, "batch 4 24 24 24"]
    coarse: Float[Tensor, "batch 3 8 8 8"]
    side: float
    straight: bool = False

    @classmethod
    @torch.no_grad()
    def of(cls, head: FlameHead, parameters: FlameParameters, side: float) -> NeckField:
        """Field around heads.

        Args:
            head: the parametric head.
            parameters: heads; the field is zero for straight necks.
            side: of the cube around the origin where points move.
        """
        if not parameters.pose[:, :3].any():
            grids = [
                parameters.pose.new_zeros(len(parameters), *shape) for shape in ((4, *[FINE] * 3), (3, *[COARSE] * 3))
            ]
            return cls(grids[0], grids[1], side, straight=True)
        if len(parameters) > 1 and parameters.pose.device.type == "cpu":
            # How a product is rounded depends on the size of the batch and on where a row lies in memory.
            rows = zip(*(value.split(1) for value in parameters), strict=True)
            fields = [cls.of(head, FlameParameters(*(part.clone() for part in row)), side) for row in rows]
            return cls(torch.cat([own.fine for own in fields]), torch.cat([own.coarse for own in fields]), side)
        posed = head.coarse(head.flame(*parameters))
        straight = head.coarse(head.flame(*parameters.without_neck()))
        fine = surface_offsets(head, posed, straight, FINE, side)
        coarse = surface_offsets(head, posed, straight, COARSE, side)[:, :3]
        turned = parameters.pose[:, :3].any(dim=1)[:, None, None, None, None]
        fine[:, :3] *= turned  # what is left of rounding
        return cls(fine, smoothed(smoothed(coarse * turned)), side)

    @torch.no_grad()
    def __call__(self, points: Float[Tensor, "batch points 3"]) -> Float[Tensor, "batch points 3"]:
        """Where points are when the neck is straight; no gradients."""
        if self.straight:
            return points
        if points.device.type == "cpu":
            grid, side = self._joint
            offset, distance, coarse = interpolate_cells(grid, points, side).split([3, 1, 3], dim=-1)
        else:
            offset, distance = interpolate_cells(self.fine, points, self.side).split([3, 1], dim=-1)
            coarse = interpolate_cells(self.coarse, points, self.side)
        share = torch.exp(-SHARPNESS * F.relu(distance - NEAR))
        return points + torch.lerp(coarse, offset, share)

    @cached_property
    def _joint(self) -> tuple[Float[Tensor, "batch 7 26 26 26"], float]:
        """Both grids as one that is looked up once, and the side of its cube.

        Every centre of the coarse grid is one of the fine grid, so that what is trilinear between the former is
        trilinear between the latter. One more cell around them is where the coarse offsets go on fading to zero.
        """
        side = self.side * (FINE + 2) / FINE
        points = cell_centres(FINE + 2, side).to(self.coarse).expand(len(self.coarse), -1, -1)
        coarse = interpolate_cells(self.coarse, points, self.side).mT.unflatten(2, (FINE + 2,) * 3)
        return torch.cat([F.pad(self.fine, (1,) * 6), coarse], dim=1), side

    def __getitem__(self, index: slice) -> NeckField:
        """Part of the batch."""
        return NeckField(self.fine[index], self.coarse[index], self.side, self.straight)


def surface_offsets(
    head: FlameHead,
    posed: Float[Tensor, "batch coarse 3"],
    straight: Float[Tensor, "batch coarse 3"],
    resolution: int,
    side: float,
) -> Float[Tensor, "batch 4 {resolution} {resolution} {resolution}"]:
    """Offsets of the cell centres of a cube, and their squared distances to the posed mesh.

    Args:
        head: names the faces of the decimated mesh.
        posed: its vertices.
        straight: the same where points are to go.
        resolution: cells along each axis.
        side: of the cube.
    """
    points = cell_centres(resolution, side).to(posed).expand(len(posed), -1, -1)
    distance, face = closest_faces(points, posed, head.coarse_faces, min_area=MIN_AREA)
    rows = torch.arange(len(posed), device=posed.device)[:, None, None]
    corners = head.coarse_faces[face]
    moved = follow_faces(points, posed[rows, corners], straight[rows, corners])
    values = torch.cat([moved - points, distance[..., None]], dim=-1)
    return values.mT.contiguous().unflatten(2, (resolution, resolution, resolution))


def follow_faces(
    points: Float[Tensor, "*batch 3"], before: Float[Tensor, "*batch 3 3"], after: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch 3"]:
    """Points that keep their place relative to a triangle: coordinates within its plane, and height above it.

    Args:
        points: anywhere.
        before: corners of each point's triangle.
        after: the same where they have moved to.
    """
    weights, height = plane_coordinates(points, before)
    return (weights[..., None] * after).sum(-2) + height[..., None] * face_normals(after)


def smoothed(values: Float[Tensor, "batch channels x y z"]) -> Float[Tensor, "batch channels x y z"]:
    """Mean over the 27 cells around each, those at the border repeated."""
    return F.avg_pool3d(F.pad(values, (1,) * 6, mode="replicate"), 3, stride=1)
