"""Cameras as Portrait4D's files have them, and the zoo's.

The files hold OpenGL cameras (x right, y up, looking along -z), 25 numbers each: cam2world, then intrinsics in units of
the image size.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from portraitzoo.rendering.cameras import Camera


def camera_of_label(label: Float[Tensor, "*batch 25"]) -> Camera:
    """The zoo's camera.

    Raises:
        ZooError: for another number of numbers.
    """
    return Camera.from_label(label).reversed_axes()


def label_of_camera(camera: Camera) -> Float[Tensor, "*batch 25"]:
    """What the files hold of a camera."""
    return camera.reversed_axes().label()
