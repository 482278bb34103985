"""The camera that sees a head of which only the camera knows how it is turned.

Portrait4D's files keep heads straight and put their pose into the camera. Axes are OpenGL's: x right, y up, the camera
looks along -z; the head's neck joint is the world's origin, its unit a third of a metre.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.rotations import rotation_matrix

FOCAL = 0.5 / math.tan(math.radians(6))
"""Focal length in units of the image size: a field of view of 12 degrees."""


def tracked_camera(turn: Float[Tensor, "batch 3"], translation: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 25"]:
    """Camera labels: cam2world (16 numbers, row-major), then intrinsics in units of the image size (9).

    The transposed turn is computed as the turn by the negative axis-angle, as in the files.

    Args:
        turn: of the head, axis-angle in radians.
        translation: of the head in camera coordinates; it is in front where z is negative.
    """
    cam2world = torch.eye(4).to(turn).repeat(len(turn), 1, 1)
    cam2world[:, :3, :3] = rotation_matrix(-turn)
    cam2world[:, :3, 3] = -(cam2world[:, :3, :3] @ translation[..., None])[..., 0]
    return torch.cat([cam2world.flatten(1), intrinsics().to(turn).flatten().expand(len(turn), -1)], dim=1)


def intrinsics() -> Float[Tensor, "3 3"]:
    """Of all cameras, in units of the image size."""
    return torch.tensor([[FOCAL, 0.0, 0.5], [0.0, FOCAL, 0.5], [0.0, 0.0, 1.0]])
