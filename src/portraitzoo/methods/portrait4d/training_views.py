"""Cameras around heads: those that Portrait4D's training draws, and those that show what it has learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.methods.portrait4d.cameras import around_head
from portraitzoo.methods.portrait4d.views import ORBIT_RADIUS, PIVOT
from portraitzoo.rendering.cameras import Camera

NUMBERS = 7
"""Uniform numbers that a camera takes."""

_YAW, _PITCH, _ROLL = (-0.78, 0.78), (-0.25, 0.65), (-0.25, 0.25)  # radians
_PIVOT = ((-0.03, 0.03), (-0.03, 0.03), (0.06, 0.12))  # x, y, z, world units
_RADIUS = (3.65, 4.45)
_SIDE = 0.5  # radians; of what is shown of a run


def random_views(uniforms: Float[Tensor, "batch 7"]) -> Camera:
    """Cameras that look at heads with straight necks (Portrait4D, section 3.4): yaw, pitch and roll within 0.78,
    -0.25 to 0.65 and 0.25 radians, a point near the middle of the head, a distance of 3.65 to 4.45.

    Args:
        uniforms: numbers in [0, 1).
    """
    low, high = torch.tensor([_YAW, _PITCH, _ROLL, *_PIVOT, _RADIUS]).to(uniforms).unbind(1)
    yaw, pitch, roll, x, y, z, radius = (low + (high - low) * uniforms).unbind(1)
    return around_head(yaw, pitch, roll, torch.stack([x, y, z], dim=1), radius)


def side_views(count: int) -> list[Camera]:
    """Single cameras around a head with a straight neck, from its right side to its left one."""
    yaws = torch.linspace(-_SIDE, _SIDE, count)
    zero, pivot, radius = torch.zeros(()), torch.tensor(PIVOT), torch.tensor(ORBIT_RADIUS)
    return [around_head(yaw, zero, zero, pivot, radius) for yaw in yaws]
