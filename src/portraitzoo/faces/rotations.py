"""Rotations of heads: by axis and angle as their joints turn, within the ranges of the joints, and by three angles."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

ROTATION_LIMITS: dict[str, tuple[tuple[float, float], ...]] = {
    "global": ((-20, 20), (-90, 90), (-20, 20)),
    "neck": ((-90, 90), (-60, 60), (-80, 80)),
    "jaw": ((-5, 60), (-0.1, 0.1), (-0.1, 0.1)),
    "eye": ((-50, 50), (-50, 50), (-0.1, 0.1)),
}
"""Least and greatest angle of each joint about x, y, z in degrees."""


def rotation_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula, R = I + sin(a) K + (1 - cos(a)) K^2 with K the cross product by the unit axis.

    The angle a is the norm of the vector with 1e-8 added to each of its numbers, as in FLAME's own code, which keeps
    the gradient finite at no rotation.

    Args:
        axis_angle: rotation axis times angle in radians.
    """
    angle = torch.linalg.vector_norm(axis_angle + 1e-8, dim=-1, keepdim=True)
    x, y, z = (axis_angle / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    return torch.eye(3).to(cross) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def bounded_rotation(raw: Float[Tensor, "*batch 3"], joint: str) -> Float[Tensor, "*batch 3"]:
    """Rotation within :data:`ROTATION_LIMITS` from unbounded numbers: min + (tanh(raw) + 1) / 2 (max - min).

    Args:
        raw: any numbers.
        joint: a key of :data:`ROTATION_LIMITS`.

    Returns:
        Angles in radians.
    """
    low, high = _limits(joint, raw)
    return low + (raw.tanh() + 1) / 2 * (high - low)


def unbounded_rotation(axis_angle: Float[Tensor, "*batch 3"], joint: str) -> Float[Tensor, "*batch 3"]:
    """The numbers that :func:`bounded_rotation` turns into ``axis_angle`` (radians).

    Of each range the outermost hundredths are out of reach: where tanh would have to exceed 0.98 it is held there.
    """
    low, high = _limits(joint, axis_angle)
    return torch.atanh(((axis_angle - low) / (high - low) * 2 - 1).clamp(-0.98, 0.98))


def _limits(joint: str, like: Tensor) -> tuple[Tensor, Tensor]:
    if joint not in ROTATION_LIMITS:
        raise ZooError(f"unknown joint {joint!r}: choose one of {', '.join(ROTATION_LIMITS)}")
    limits = torch.tensor(ROTATION_LIMITS[joint]).to(like) * (math.pi / 180)
    return limits[:, 0], limits[:, 1]


def euler_rotation(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rz Ry Rx, for column vectors: turns about the fixed x, then y, then z axis.

    Args:
        angles: about x, y and z, radians.
    """
    axes = rotation_matrix(torch.diag_embed(angles))
    return axes[..., 2, :, :] @ axes[..., 1, :, :] @ axes[..., 0, :, :]
