"""Cameras of 3D-Aware Video Generation: positions on a sphere, and the rendering programs as trajectories.

The released networks live in a world whose z axis is up and whose faces look toward +x, seen by cameras that look along
-z with y up. Here is the one place that turns those into the zoo's :class:`~portraitzoo.rendering.cameras.Camera`;
:func:`~portraitzoo.methods.threedvidgen.field.field_axes` takes points back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from portraitzoo.errors import ZooError
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig
from portraitzoo.rendering.cameras import Camera, pinhole

LEVEL = math.pi / 2
Values = Float[Tensor, " views"]


def camera_on_sphere(
    yaw: Float[Tensor, "*batch"] | float,
    polar: Float[Tensor, "*batch"] | float = LEVEL,
    radius: Float[Tensor, "*batch"] | float = 1.0,
    fov: Float[Tensor, "*batch"] | float = 18.0,
) -> Camera:
    """Camera that looks at the origin from a place on a sphere around it.

    Args:
        yaw: radians; 0 is in front of the face, positive moves the camera to +x.
        polar: angle from the upright axis, radians; pi / 2 is level, less is from above.
        radius: distance from the origin, world units.
        fov: full field of view, degrees.
    """
    angles = (torch.as_tensor(value, dtype=torch.float32) for value in (yaw, polar, radius, fov))
    yaws, polars, radii, fovs = torch.broadcast_tensors(*angles)
    direction = torch.stack([polars.sin() * yaws.sin(), polars.cos(), polars.sin() * yaws.cos()], dim=-1)
    right = normalize(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]).expand_as(direction), direction), dim=-1)
    up = torch.linalg.cross(direction, right)
    cam2world = torch.eye(4).repeat(*yaws.shape, 1, 1)
    cam2world[..., :3, :3] = torch.stack([right, -up, -direction], dim=-1)
    cam2world[..., :3, 3] = radii[..., None] * direction
    intrinsics = pinhole(1.0).repeat(*yaws.shape, 1, 1)
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = 1 / (2 * torch.tan(torch.deg2rad(fovs) / 2))
    return Camera(cam2world, intrinsics)


def from_sphere_axes(cam2world: Float[Tensor, "*batch 4 4"], fov: float) -> Camera:
    """The camera of a matrix in the conventions of the released networks (see the head of this module).

    Args:
        cam2world: camera to world, z up, camera looking along -z.
        fov: full field of view, degrees.
    """
    turned = cam2world[..., [1, 2, 0, 3], :] * torch.tensor([1.0, -1.0, -1.0, 1.0])
    focal = 1 / (2 * math.tan(math.radians(fov) / 2))
    return Camera(turned, pinhole(focal).expand(*cam2world.shape[:-2], 3, 3))


def relative_camera(
    config: ThreeDVidGenConfig,
    u: Values | float,
    v: Values | float = 0.5,
    r: Values | float = 0.5,
    fov: Values | float | None = None,
) -> Camera:
    """Camera at relative places within the configuration's ranges of yaw, polar angle and radius.

    Args:
        config: ranges and field of view.
        u: of the yaw; 0 is the lower end, 1 the upper.
        v: of the polar angle.
        r: of the radius.
        fov: field of view in degrees; None takes the configuration's.
    """
    ranges = zip((config.yaw_range, config.polar_range, config.radius_range), (u, v, r), strict=True)
    yaw, polar, radius = (low + (high - low) * place for (low, high), place in ranges)
    return camera_on_sphere(yaw, polar, radius, config.fov if fov is None else fov)


def gaussian_camera(config: ThreeDVidGenConfig, yaw: Values, polar: Values, radius: Values) -> Camera:
    """Cameras as in training: angles around the middle of their ranges, which are two deviations wide.

    Args:
        config: ranges and field of view.
        yaw: standard normal numbers.
        polar: standard normal numbers.
        radius: uniform numbers in [0, 1].
    """
    return relative_camera(config, 0.5 + yaw / 2, 0.5 + polar / 2, radius)


def random_camera(config: ThreeDVidGenConfig, generator: torch.Generator) -> Camera:
    """One camera of batch shape [1] as in training, by a CPU generator."""
    yaw, polar = torch.randn(2, 1, generator=generator)
    return gaussian_camera(config, yaw, polar, torch.rand(1, generator=generator))


def still_camera(config: ThreeDVidGenConfig) -> Camera:
    """The camera, a little below the face, from which a frozen background is seen."""
    return camera_on_sphere(0.0, LEVEL + 0.2, sum(config.radius_range) / 2, config.fov)


# ---------------------------------------------------------------------------------------------------------------------
# Rendering programs: (config, views, reach) -> Camera of batch shape [views], in the order of the written video.
# Upstream renders the cameras of a program in one order and writes the frames in the reverse one.

Program = Callable[[ThreeDVidGenConfig, int, float], Camera]


def _sweep(views: int, reach: float) -> Values:
    return 0.5 + reach * (0.5 - torch.linspace(0, 1, views))


def yaw(config: ThreeDVidGenConfig, views: int, reach: float) -> Camera:
    """From the upper end of the yaw range to the lower; ``reach`` scales the range."""
    return relative_camera(config, _sweep(views, reach))


def yaw_inverse(config: ThreeDVidGenConfig, views: int, reach: float) -> Camera:
    """:func:`yaw` the other way round."""
    return relative_camera(config, _sweep(views, reach).flip(0))


def pitch(config: ThreeDVidGenConfig, views: int, reach: float) -> Camera:
    """From the upper end of the polar range (below the face) to the lower; ``reach`` scales the range."""
    return relative_camera(config, torch.full((views,), 0.5), _sweep(views, reach))


def yaw_pitch(config: ThreeDVidGenConfig, views: int, reach: float) -> Camera:
    """Once around an ellipse of 0.4 rad to the sides and 0.2 rad up and down, whatever the ranges."""
    phase = 2 * math.pi * torch.arange(views).flip(0) / views
    return camera_on_sphere(reach * 0.4 * phase.sin(), LEVEL + reach * 0.2 * phase.cos(), fov=config.fov)


def front(config: ThreeDVidGenConfig, views: int, reach: float) -> Camera:
    """Standing in front."""
    return relative_camera(config, torch.full((views,), 0.5))


def front_zoom(config: ThreeDVidGenConfig, views: int, reach: float) -> Camera:
    """In front, the field of view growing from 0.9 to 1.1 of its usual size; ``reach`` scales the change."""
    return relative_camera(
        config, torch.full((views,), 0.5), fov=config.fov * (1 + 0.1 * reach * torch.linspace(-1, 1, views))
    )


PROGRAMS: dict[str, Program] = {
    "front": front,
    "yaw": yaw,
    "yaw-inverse": yaw_inverse,
    "pitch": pitch,
    "yaw-pitch": yaw_pitch,
    "front-zoom": front_zoom,
}
"""Trajectories by name; the original's names (``rotation_camera_yaw`` ...) are in :data:`ORIGINAL_NAMES`."""

ORIGINAL_NAMES = {
    "rotation_camera": "yaw",
    "rotation_camera_yaw": "yaw",
    "rotation_camera_yaw_inv": "yaw-inverse",
    "rotation_camera_pitch": "pitch",
    "rotation_camera_yaw_pitch": "yaw-pitch",
    "front_zoom": "front-zoom",
}


def program(name: str, config: ThreeDVidGenConfig, views: int, reach: float = 1.0) -> Camera:
    """Cameras of a rendering program, by our name or the original's.

    Args:
        name: of :data:`PROGRAMS` or :data:`ORIGINAL_NAMES`.
        config: ranges and field of view.
        views: number of cameras.
        reach: factor of the extent of the movement.

    Raises:
        ZooError: for an unknown name or fewer than one view.
    """
    if views < 1:
        raise ZooError(f"a camera path needs at least 1 view, not {views}")
    chosen = ORIGINAL_NAMES.get(name, name)
    if chosen not in PROGRAMS:
        raise ZooError(f"unknown trajectory {name!r}: choose one of {', '.join(PROGRAMS)}")
    return PROGRAMS[chosen](config, views, reach)


def check_cameras(camera: Camera, config: ThreeDVidGenConfig) -> None:
    """Require that the cameras can see the head at all.

    Raises:
        ZooError: if a camera stands so far from the origin, or so close, that the sampled depths miss it.
    """
    distance = torch.linalg.vector_norm(camera.cam2world[..., :3, 3], dim=-1)
    low, high = config.depth_near, config.depth_far
    if bool(((distance < low) | (distance > high)).any()):
        wrong = distance[(distance < low) | (distance > high)].flatten()[0]
        raise ZooError(
            f"a camera stands {float(wrong):.3g} from the origin: this network sees heads from {low:g} to {high:g} away"
        )
