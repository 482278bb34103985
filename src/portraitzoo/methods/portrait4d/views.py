"""From where Portrait4D's heads are looked at while they move."""

from __future__ import annotations

import math

import torch

from portraitzoo.errors import ZooError
from portraitzoo.methods.portrait4d.cameras import around_head, frontal
from portraitzoo.methods.portrait4d.prepared import Frames, without_turn
from portraitzoo.rendering.cameras import Camera

PROGRAMS = ("driving", "front", "orbit")
ORBIT_YAW, ORBIT_PITCH, ORBIT_RADIUS = 0.35, 0.25, 4.2
PIVOT = (0.0, 0.0, 0.09)


def view(frames: Frames, trajectory: str | Camera, neck: bool) -> tuple[Frames, Camera]:
    """The heads to render and the cameras that see them.

    Args:
        frames: driving frames.
        trajectory: ``driving``, ``front``, ``orbit``, or cameras of batch shape [time] (or one).
        neck: with ``driving``, whether necks turn before a fixed camera, or cameras move around straight necks.

    Raises:
        ZooError: for another trajectory, or cameras of another number than the frames.
    """
    if isinstance(trajectory, Camera):
        return without_turn(frames), cameras_of(trajectory, len(frames))
    intrinsics = frames.camera.intrinsics
    match trajectory:
        case "driving":
            return (frames, frontal(intrinsics)) if neck else (without_turn(frames), frames.camera)
        case "front":
            return without_turn(frames), frontal(intrinsics)
        case "orbit":
            return without_turn(frames), Camera(orbit(len(frames)).cam2world, intrinsics)
    raise ZooError(f"unknown trajectory {trajectory!r}: choose one of {', '.join(PROGRAMS)}")


def orbit(num_frames: int) -> Camera:
    """One turn on an ellipse around the frontal view: yaw by sine, pitch by cosine."""
    phase = 2 * math.pi * torch.arange(num_frames) / num_frames
    pivot = torch.tensor(PIVOT).expand(num_frames, 3)
    radius = torch.full((num_frames,), ORBIT_RADIUS)
    return around_head(ORBIT_YAW * phase.sin(), ORBIT_PITCH * phase.cos(), torch.zeros(num_frames), pivot, radius)


def cameras_of(camera: Camera, count: int) -> Camera:
    """A camera for each of ``count`` frames: as many, or one for all.

    Raises:
        ZooError: for another number.
    """
    if not camera.shape:
        return camera.expand(count)
    if tuple(camera.shape) != (count,):
        raise ZooError(f"{count} frames need {count} cameras (or one), not {list(camera.shape)}")
    return camera
