"""The head's rotation, shared out between the camera and the neck."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.flame import FLAME, NECK
from portraitzoo.faces.flame_parameters import without_neck
from portraitzoo.faces.rotations import rotation_matrix


def rigid_inverse(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rotation and translation."""
    rotation = transform[..., :3, :3].mT
    inverse = transform.clone()
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ transform[..., :3, 3:])[..., 0]
    return inverse


def camera_for_neck(
    flame: FLAME,
    cam2world: Float[Tensor, "batch 4 4"],
    shape: Float[Tensor, "batch 300"],
    expression: Float[Tensor, "batch 100"],
    pose: Float[Tensor, "batch 6"],
) -> Float[Tensor, "batch 4 4"]:
    """Cameras that see heads with turned necks as ``cam2world`` sees them with straight necks.

    With R, t of the world-to-camera transform, N the neck's rotation, J0 and J the neck joint with the neck straight
    and turned: R' = R N^T, t' = R J0 + t - R' J. Any camera axes will do.

    Args:
        flame: the head.
        cam2world: cameras that hold the whole pose of the head.
        shape: identity.
        expression: expression.
        pose: neck and jaw; with a straight neck the cameras stay as they are.
    """
    world2cam = rigid_inverse(cam2world)
    _, straight = flame.posed(shape, expression, without_neck(pose))
    _, turned = flame.posed(shape, expression, pose)
    rotation = world2cam[:, :3, :3] @ rotation_matrix(pose[:, :3]).mT
    pivot = (world2cam[:, :3, :3] @ straight[:, NECK, :, None])[..., 0] + world2cam[:, :3, 3]
    moved = world2cam.clone()
    moved[:, :3, :3] = rotation
    moved[:, :3, 3] = pivot - (rotation @ turned[:, NECK, :, None])[..., 0]
    return rigid_inverse(moved)
