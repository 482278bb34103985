"""The world outside a sphere, folded into a bounded space (Zhang et al., 2020, "NeRF++", section 4)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


def inverted_sphere(
    origins: Float[Tensor, "*batch 3"],
    directions: Float[Tensor, "*batch 3"],
    inverse_distances: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch"]]:
    """Where rays from within the unit sphere reach given distances from its centre.

    The point in which a ray leaves the sphere is turned about the axis perpendicular to the ray's plane, by the angle
    between the ray seen at the sphere and at the wanted distance.

    Args:
        origins: within or on the unit sphere.
        directions: of any length.
        inverse_distances: one over the distance from the centre, in [0, 1].

    Returns:
        Points (unit direction from the centre, inverse distance), and how far along the ray they lie, in units of the
        length of its direction.
    """
    squared = directions.square().sum(dim=-1)
    nearest = -(directions * origins).sum(dim=-1) / squared
    miss = torch.linalg.vector_norm(origins + nearest[..., None] * directions, dim=-1)
    per_length = squared.rsqrt()
    leaving = nearest + (1 - miss.square()).sqrt() * per_length
    exits = origins + leaving[..., None] * directions
    # A ray through the centre has no axis, but is not turned either.
    axis = normalize(torch.linalg.cross(origins, exits), dim=-1)
    seen = torch.asin(miss * inverse_distances)
    angle = (torch.asin(miss) - seen)[..., None]
    along = (axis * exits).sum(dim=-1, keepdim=True)
    turned = exits * angle.cos() + torch.linalg.cross(axis, exits) * angle.sin() + axis * along * (1 - angle.cos())
    points = torch.cat([normalize(turned, dim=-1), inverse_distances[..., None]], dim=-1)
    return points, seen.cos() * per_length / (inverse_distances + 1e-6) + nearest
