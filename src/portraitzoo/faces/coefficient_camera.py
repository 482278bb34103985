"""The camera of a picture by the pose of the face in it, in EG3D's world (Chan et al., CVPR 2022, supplement).

PV3D's labels follow the same convention: heads stand still at the origin, cameras on a sphere around them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.rotations import euler_rotation
from portraitzoo.rendering.cameras import Camera, pinhole

CAMERA_DISTANCE = 10.0
"""Of the camera from the origin of the face coefficients, decimetres."""
WORLD_SCALE, WORLD_SHIFT = 0.27, (0.0, 0.006, 0.161)
"""From the coefficients' world to EG3D's."""
RADIUS = 2.7
FOCAL = 2985.29 / 700
"""Focal length in units of the side of :func:`~portraitzoo.faces.alignment.eg3d_crop`."""


def camera_of_pose(
    angles: Float[Tensor, "batch 3"],
    translation: Float[Tensor, "batch 3"],
    radius: float | None = RADIUS,
    center: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Camera:
    """Cameras that see the standing head as the pictures show the moved one.

    Args:
        angles: of the face coefficients, radians.
        translation: of the face coefficients.
        radius: of the sphere around ``center`` that cameras are pulled onto, since the distance of a face is the worst
            known of its numbers; None leaves them where they are.
        center: of that sphere.

    Returns:
        Cameras for :func:`~portraitzoo.faces.alignment.eg3d_crop`; ``label()`` gives EG3D's 25 numbers, and
        ``mirrored()`` is the camera of the mirrored picture.

    Raises:
        ZooError: for other shapes, and for numbers that are not finite.
    """
    if angles.shape != translation.shape or angles.ndim != 2 or angles.shape[1] != 3:
        raise ZooError(f"a pose is two rows of 3 numbers, not {list(angles.shape)} and {list(translation.shape)}")
    # Points are row vectors in the coefficients' convention: p R^T turns them, and so R^T brings the camera around.
    around = euler_rotation(angles).mT
    away = translation - translation.new_tensor([0.0, 0.0, CAMERA_DISTANCE])
    place = -(around @ away[:, :, None])[..., 0] * WORLD_SCALE + translation.new_tensor(WORLD_SHIFT)
    if radius is not None:
        middle = translation.new_tensor(center)
        place = middle + torch.nn.functional.normalize(place - middle, dim=1) * radius
    cam2world = torch.eye(4).to(place).repeat(len(place), 1, 1)
    cam2world[:, :3, :3] = around * place.new_tensor([1.0, -1.0, -1.0])
    cam2world[:, :3, 3] = place
    return Camera(cam2world, pinhole(FOCAL).to(place).expand(len(place), 3, 3))
