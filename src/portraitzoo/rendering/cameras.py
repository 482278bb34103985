"""The one camera of the zoo, and the trajectories along which cameras move.

Camera axes follow OpenCV (x right, y down, z forward); world y is up and a face at the origin looks toward +z.
Intrinsics are normalised by the image size, so that one camera serves every resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

LABEL_SIZE = 25  # the EG3D camera label: cam2world (16) then intrinsics (9), both row-major


@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras.

    Attributes:
        cam2world: rigid transforms from camera to world coordinates.
        intrinsics: ``[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]`` in units of the image's width and height.

    Raises:
        ZooError: if the shapes do not fit or a number is not finite.
    """

    cam2world: Float[Tensor, "*batch 4 4"]
    intrinsics: Float[Tensor, "*batch 3 3"]

    def __post_init__(self) -> None:
        pose, lens = tuple(self.cam2world.shape), tuple(self.intrinsics.shape)
        if pose[-2:] != (4, 4) or lens[-2:] != (3, 3) or pose[:-2] != lens[:-2]:
            raise ZooError(
                f"a camera needs cam2world [..., 4, 4] and intrinsics [..., 3, 3] of one batch shape, "
                f"not {list(pose)} and {list(lens)}"
            )
        if not (torch.isfinite(self.cam2world).all() and torch.isfinite(self.intrinsics).all()):
            raise ZooError("a camera holds NaN or infinite numbers")

    @classmethod
    def from_label(cls, label: Float[Tensor, "*batch 25"]) -> Camera:
        """Camera of an EG3D label: 16 numbers of cam2world and 9 of the intrinsics, row-major.

        Raises:
            ZooError: if there are not 25 numbers.
        """
        if label.ndim == 0 or label.shape[-1] != LABEL_SIZE:
            found = label.shape[-1] if label.ndim else 1
            raise ZooError(f"a camera label has {LABEL_SIZE} numbers (cam2world 4x4, intrinsics 3x3), not {found}")
        return cls(label[..., :16].unflatten(-1, (4, 4)), label[..., 16:].unflatten(-1, (3, 3)))

    def label(self) -> Float[Tensor, "*batch 25"]:
        """EG3D label: cam2world then intrinsics, row-major."""
        return torch.cat([self.cam2world.flatten(-2), self.intrinsics.flatten(-2)], dim=-1)

    @classmethod
    def look_at(
        cls,
        yaw: Float[Tensor, "*batch"] | float,
        pitch: Float[Tensor, "*batch"] | float,
        radius: Float[Tensor, "*batch"] | float = 2.7,
        target: tuple[float, float, float] | Float[Tensor, "*batch 3"] = (0.0, 0.0, 0.2),
        focal: float = 4.2647,
    ) -> Camera:
        """Camera on a sphere around the ORIGIN that looks at ``target`` (EG3D's look-at sampler).

        Args:
            yaw: horizontal angle in radians; 0 is in front of the face, positive moves the camera to +x.
            pitch: vertical angle in radians; 0 is level, positive moves the camera down.
            radius: distance from the origin in world units.
            target: point in the middle of the image, of all cameras or of each.
            focal: focal length in units of the image size; the principal point is the centre.
        """
        yaws, pitches, radii = torch.broadcast_tensors(
            *(torch.as_tensor(value, dtype=torch.float32) for value in (yaw, pitch, radius))
        )
        theta = yaws + math.pi / 2
        polar = (pitches + math.pi / 2).clamp(1e-5, math.pi - 1e-5)
        phi = torch.arccos(1 - 2 * (polar / math.pi))
        direction = torch.stack(
            [phi.sin() * torch.cos(math.pi - theta), phi.cos(), phi.sin() * torch.sin(math.pi - theta)], dim=-1
        )
        position = radii[..., None] * direction
        forward = _normalised(torch.as_tensor(target) - position)
        up = torch.tensor([0.0, 1.0, 0.0]).expand_as(forward)
        right = -_normalised(torch.linalg.cross(up, forward))
        # With x right and z forward this completes a right-handed OpenCV frame: its y axis points down in the image.
        down = _normalised(torch.linalg.cross(forward, right))
        cam2world = torch.eye(4).repeat(*yaws.shape, 1, 1)
        cam2world[..., :3, :3] = torch.stack([right, down, forward], dim=-1)
        cam2world[..., :3, 3] = position
        return cls(cam2world, pinhole(focal).expand(*yaws.shape, 3, 3))

    @classmethod
    def canonical(cls, radius: float = 2.7, focal: float = 4.2647) -> Camera:
        """Camera straight in front of the face: rotation diag(1, -1, -1), at (0, 0, radius)."""
        cam2world = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        cam2world[2, 3] = radius
        return cls(cam2world, pinhole(focal))

    @classmethod
    def stack(cls, cameras: list[Camera]) -> Camera:
        """One batch of cameras from several of equal shape, along a new first axis."""
        return cls(torch.stack([c.cam2world for c in cameras]), torch.stack([c.intrinsics for c in cameras]))

    @property
    def shape(self) -> torch.Size:
        """Batch shape."""
        return self.cam2world.shape[:-2]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single camera has no length")
        return self.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Camera:
        if not self.shape:
            raise IndexError("a single camera cannot be indexed")
        return Camera(self.cam2world[index], self.intrinsics[index])

    def expand(self, *shape: int) -> Camera:
        """The same cameras repeated (without copying) to batch shape ``shape``."""
        return Camera(self.cam2world.expand(*shape, 4, 4), self.intrinsics.expand(*shape, 3, 3))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Camera:
        """Copy on another device or in another dtype."""
        return Camera(self.cam2world.to(device, dtype), self.intrinsics.to(device, dtype))

    def reversed_axes(self) -> Camera:
        """The camera with y and z axes reversed: from OpenCV's axes to OpenGL's (y up, looking along -z) and back."""
        signs = self.cam2world.new_tensor([1.0, -1.0, -1.0, 1.0])
        return Camera(self.cam2world * signs, self.intrinsics)

    def mirrored(self) -> Camera:
        """Camera that sees the world mirrored at x = 0 as this one's picture flipped left to right."""
        flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).to(self.cam2world)
        return Camera(flip @ self.cam2world @ flip, self.intrinsics)


def pinhole(focal: float, center: tuple[float, float] = (0.5, 0.5)) -> Float[Tensor, "3 3"]:
    """Intrinsics of a pinhole camera; ``focal`` and ``center`` in units of the image size."""
    return torch.tensor([[focal, 0.0, center[0]], [0.0, focal, center[1]], [0.0, 0.0, 1.0]])


def _normalised(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


# ---------------------------------------------------------------------------------------------------------------------
# Trajectories: num_frames -> Camera of batch shape [num_frames]. Angles in radians.

Trajectory = Callable[[int], Camera]

LEVEL = -0.05
"""Pitch of the frontal view in EG3D's and PV3D's camera protocols, radians (the camera stands a little above)."""


def front(num_frames: int) -> Camera:
    """The canonical camera, standing still."""
    return Camera.canonical().expand(num_frames)


def orbit(num_frames: int, yaw: float = 0.35, pitch: float = 0.25, period: int | None = None) -> Camera:
    """One turn on an ellipse around the frontal view: yaw by sine, pitch by cosine.

    With ``period=120`` this is PV3D's own video program. Without it the turn closes after ``num_frames``.
    """
    phase = 2 * 3.14 * torch.arange(num_frames) / (period or num_frames)  # 3.14 as in the original program
    return Camera.look_at(
        3.14 / 2 - math.pi / 2 + yaw * phase.sin(), 3.14 / 2 - math.pi / 2 + LEVEL + pitch * phase.cos()
    )


def yaw(num_frames: int, amplitude: float = math.radians(30), periods: float = 1.0) -> Camera:
    """Turn left and right by ``amplitude``, starting and ending in front."""
    phase = 2 * math.pi * periods * torch.arange(num_frames) / max(num_frames - 1, 1)
    return Camera.look_at(amplitude * phase.sin(), LEVEL)


def yaw_pitch(num_frames: int, yaw: float = 0.4, pitch: float = 0.2) -> Camera:
    """A figure of eight: one left-right turn while the camera nods twice."""
    phase = 2 * math.pi * torch.arange(num_frames) / max(num_frames - 1, 1)
    return Camera.look_at(yaw * phase.sin(), LEVEL + pitch * (2 * phase).sin())


def zoom(num_frames: int, near: float = 0.9, far: float = 1.1) -> Camera:
    """Frontal view whose focal length sweeps from ``far`` to ``near`` and back (factors of the distance)."""
    phase = torch.cos(2 * math.pi * torch.arange(num_frames) / max(num_frames - 1, 1))
    factor = (near + far) / 2 + (far - near) / 2 * phase
    camera = Camera.look_at(torch.zeros(num_frames), LEVEL)
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, 0, 0] /= factor
    intrinsics[:, 1, 1] /= factor
    return Camera(camera.cam2world, intrinsics)


def views(num_frames: int, yaw: float = math.radians(30)) -> Camera:
    """Standing views fanned evenly from -``yaw`` to +``yaw``, one a frame (a contact sheet of one head)."""
    return Camera.look_at(torch.linspace(-yaw, yaw, num_frames) if num_frames > 1 else torch.zeros(1), LEVEL)


TRAJECTORIES: dict[str, Trajectory] = {
    "front": front,
    "orbit": orbit,
    "yaw": yaw,
    "yaw-pitch": yaw_pitch,
    "zoom": zoom,
    "views": views,
}


def trajectory(name: str, num_frames: int) -> Camera:
    """Cameras of the named trajectory.

    Raises:
        ZooError: for an unknown name or fewer than one frame.
    """
    if num_frames < 1:
        raise ZooError(f"a clip needs at least 1 frame, not {num_frames}")
    if name not in TRAJECTORIES:
        raise ZooError(f"unknown trajectory {name!r}: choose one of {', '.join(TRAJECTORIES)}")
    return TRAJECTORIES[name](num_frames)
