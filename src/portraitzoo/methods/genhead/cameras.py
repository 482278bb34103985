"""GenHead's cameras: the zoo's camera as its label and back, the range of depths, the view of the authors' program."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.head_maps import FIELD_OF_VIEW
from portraitzoo.rendering.cameras import Camera, pinhole

_TRAJECTORY = Camera.canonical()  # what the distance and lens of named trajectories are told from

FOCAL = 0.5 / math.tan(math.radians(FIELD_OF_VIEW / 2))
"""Focal length of all its data in units of the image size."""
DISTANCE = 4.0
"""Distance of its frontal camera from the neck joint, world units."""


def camera_of(label: Float[Tensor, "*batch 25"]) -> Camera:
    """Camera of a label, which holds it in OpenGL's axes (x right, y up, looking along -z).

    Raises:
        ZooError: if there are not 25 numbers.
    """
    return Camera.from_label(label).reversed_axes()


def label_of(camera: Camera) -> Float[Tensor, "*batch 25"]:
    """Label of a camera, the inverse of :func:`camera_of`."""
    return camera.reversed_axes().label()


def frontal() -> Camera:
    """The camera straight in front of the head, of the authors' image program."""
    cam2world = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    cam2world[2, 3] = DISTANCE
    return Camera(cam2world, pinhole(FOCAL))


def placed(camera: Camera) -> Camera:
    """Cameras of a named trajectory at GenHead's distance and with its lens; a zoom becomes a change of distance.

    Args:
        camera: along a trajectory of :data:`portraitzoo.rendering.cameras.TRAJECTORIES`.
    """
    lens = camera.intrinsics[..., 0, 0] / _TRAJECTORY.intrinsics[0, 0]
    away = DISTANCE / _TRAJECTORY.cam2world[2, 3] / lens
    cam2world = camera.cam2world.clone()
    cam2world[..., :3, 3] *= away[..., None]
    return Camera(cam2world, pinhole(FOCAL).expand_as(camera.intrinsics))


def depth_bounds(camera: Camera, side: float) -> tuple[Float[Tensor, "batch 1 1"], Float[Tensor, "batch 1 1"]]:
    """Distances along the rays between which a cube around the origin is sampled: the origin's depth, less and plus
    half the side.

    Args:
        camera: batch of cameras.
        side: of the cube.
    """
    position, forward = camera.cam2world[:, :3, 3], camera.cam2world[:, :3, 2]
    depth = (position * forward).sum(-1).abs()[:, None, None]
    return depth - side / 2, depth + side / 2
