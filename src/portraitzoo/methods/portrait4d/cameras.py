"""Cameras as Portrait4D's files have them, and the zoo's.

The files hold OpenGL cameras (x right, y up, looking along -z), 25 numbers each: cam2world, then intrinsics in units of
the image size.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.tracked_camera import FOCAL
from portraitzoo.rendering.cameras import Camera

FRONTAL_POSITION = (0.0, 0.01, 4.2)
"""Of the authors' fixed camera, world units."""


def camera_of_label(label: Float[Tensor, "*batch 25"]) -> Camera:
    """The zoo's camera.

    Raises:
        ZooError: for another number of numbers.
    """
    return Camera.from_label(label).reversed_axes()


def label_of_camera(camera: Camera) -> Float[Tensor, "*batch 25"]:
    """What the files hold of a camera."""
    return camera.reversed_axes().label()


def frontal(intrinsics: Float[Tensor, "batch 3 3"]) -> Camera:
    """Cameras straight in front of the head, as the authors' program has them.

    Args:
        intrinsics: of the cameras.
    """
    cam2world = torch.diag(intrinsics.new_tensor([1.0, -1.0, -1.0, 1.0]))
    cam2world[:3, 3] = intrinsics.new_tensor(FRONTAL_POSITION)
    return Camera(cam2world.expand(len(intrinsics), 4, 4), intrinsics)


def around_head(
    yaw: Float[Tensor, "*batch"],
    pitch: Float[Tensor, "*batch"],
    roll: Float[Tensor, "*batch"],
    pivot: Float[Tensor, "*batch 3"],
    radius: Float[Tensor, "*batch"],
) -> Camera:
    """Cameras on a sphere around the neck joint that look at a point of the head (training views).

    Args:
        yaw: radians; positive turns the camera to the head's right, -x.
        pitch: radians; positive raises the camera.
        roll: radians; positive turns the camera clockwise as it looks.
        pivot: what it looks at, world units.
        radius: distance from the origin.
    """
    camera = Camera.look_at(-yaw, -pitch, radius, target=pivot, focal=FOCAL)
    turn = torch.zeros_like(camera.intrinsics)
    turn[..., 0, 0] = turn[..., 1, 1] = roll.cos()
    turn[..., 0, 1], turn[..., 1, 0], turn[..., 2, 2] = -roll.sin(), roll.sin(), 1
    cam2world = camera.cam2world.clone()
    cam2world[..., :3, :3] = cam2world[..., :3, :3] @ turn
    return Camera(cam2world, camera.intrinsics)
