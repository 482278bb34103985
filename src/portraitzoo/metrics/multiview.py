"""PV3D's set of four frames for the metrics across views and time.

One head at two times, seen from the front and from the side: front(t0), side(t1), side(t0), front(t1). The metrics
compare pairs (front, side), first of equal time and then across times.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.rendering.cameras import LEVEL, Camera

NUM_VIEWS = 4
PAIRS = ((0, 2), (3, 1), (0, 1), (3, 2))
"""(front, side) frame numbers; the first two pairs share a time."""


def side_camera(yaw: float = 30.0, pitch: float = 0.0) -> Camera:
    """Camera of the side frames; angles in degrees.

    Only this view stands a little above (0.05 rad): the front frames are taken with :meth:`Camera.canonical`.
    """
    return Camera.look_at(math.radians(yaw), LEVEL + math.radians(pitch))


def yaw_between(front: Float[Tensor, "4 4"], side: Float[Tensor, "4 4"]) -> float:
    """Angle in degrees, at least 0, about the vertical between the places of two cameras, seen from the origin.

    Args:
        front: cam2world of one camera, y up in the world.
        side: that of the other.
    """
    ahead, across = (math.atan2(float(pose[0, 3]), float(pose[2, 3])) for pose in (front, side))
    return abs(math.degrees(math.remainder(across - ahead, 2 * math.pi)))


def check_views(what: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """Raise ZooError unless ``shape`` is ``expected`` (``None``: any size), which has the views on its second axis."""
    if len(shape) != len(expected) or any(e is not None and e != s for s, e in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise ZooError(f"{what} must be [{wanted}], not {list(shape)}: front(t0), side(t1), side(t0), front(t1) a head")
