"""Surface normals, of a rendered surface or of the density field itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

Field = Callable[[Float[Tensor, "batch points 3"]], Float[Tensor, "batch points 1"]]


def normals_from_position(position: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch height width 3"]:
    """Normals of a surface given by the world position seen in each pixel, in world axes, toward the camera.

    The cross product of the differences between neighbouring pixels (central, one-sided at the border), of length 1, or
    0 where neighbours coincide.

    Args:
        position: world xyz for each pixel of an image of at least 2 x 2, rows downward, such as the map ``position``.
    """
    down, right = torch.gradient(position, dim=(1, 2))
    return normalize(torch.linalg.cross(down, right), dim=-1)


def normals_from_density(
    field: Field, position: Float[Tensor, "batch height width 3"], step: float = 1 / 256
) -> Float[Tensor, "batch height width 3"]:
    """Normals of the level sets of a density, in world axes, toward falling density.

    Minus the gradient by central differences, of length 1, or 0 where the density is constant. Differences rather than
    automatic differentiation: tri-planes are interpolated linearly, so that their exact gradient jumps from texel to
    texel, and differences work in inference mode.

    Args:
        field: density (before or after its activation) at points of the world.
        position: where to take the normals, world xyz.
        step: distance to either side, world units; about one texel of the tri-plane.
    """
    points = position.flatten(1, 2)
    offsets = step * torch.eye(3, dtype=position.dtype, device=position.device)
    gradient = torch.cat([field(points + offset) - field(points - offset) for offset in offsets], dim=-1)
    return -normalize(gradient.view_as(position), dim=-1)
