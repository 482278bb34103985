"""Prepared faces: what Portrait4D needs to know of a photo or a driving frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_parameters import LABEL_SIZE as HEAD_SIZE
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.media.images import from_uint8
from portraitzoo.methods.portrait4d.cameras import camera_of_label, label_of_camera
from portraitzoo.rendering.cameras import LABEL_SIZE as CAMERA_SIZE
from portraitzoo.rendering.cameras import Camera

FRAME_LABEL = CAMERA_SIZE + HEAD_SIZE


@dataclass(frozen=True)
class Frames:
    """Tracked frames of one face. The head's rotation is in the neck and, once more, in the camera.

    Attributes:
        camera: that sees a head with a straight neck as the frame shows it, batch shape [time].
        head: parameters, the neck turned as the head is.
        motion: motion embeddings.

    Raises:
        ZooError: if the parts are of another number of frames, there are none, or a number is not finite.
    """

    camera: Camera
    head: FlameParameters
    motion: Float[Tensor, "time motion_dim"]

    def __post_init__(self) -> None:
        counts = {"cameras": self.camera.shape[0] if self.camera.shape else 0, "heads": len(self.head)}
        for name, count in counts.items():
            if count != len(self.motion):
                raise ZooError(f"there are {count} {name} for {len(self.motion)} motion embeddings: prepare them again")
        if not len(self.motion):
            raise ZooError("there are no frames to animate from")
        for frame in range(len(self.motion)):
            if not torch.isfinite(self.motion[frame]).all():
                raise ZooError(f"the motion embedding of frame {frame} holds NaN or infinite numbers: leave it out")
        if not torch.isfinite(self.camera.cam2world).all() or not torch.isfinite(self.camera.intrinsics).all():
            raise ZooError("a camera holds NaN or infinite numbers")

    @classmethod
    def from_labels(cls, labels: Float[Tensor, "time 437"], motion: Float[Tensor, "time motion_dim"]) -> Frames:
        """From rows of camera (OpenGL axes) and head parameters, as the authors' files and data sets have them.

        Raises:
            ZooError: if there are not 437 numbers in a row.
        """
        if labels.ndim != 2 or labels.shape[1] != FRAME_LABEL:
            raise ZooError(f"labels of frames are [time, {FRAME_LABEL}] numbers, not {list(labels.shape)}")
        camera, head = labels.split([CAMERA_SIZE, HEAD_SIZE], dim=1)
        return cls(camera_of_label(camera), FlameParameters.from_label(head), motion)

    def labels(self) -> Float[Tensor, "time 437"]:
        """The inverse of :meth:`from_labels`."""
        return torch.cat([label_of_camera(self.camera), self.head.label()], dim=1)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.motion)

    def __getitem__(self, index: slice) -> Frames:
        """Some of the frames."""
        return Frames(self.camera[index], self.head[index], self.motion[index])

    @classmethod
    def attempt(cls, labels: Float[Tensor, "time 437"], motion: Float[Tensor, "time motion_dim"]) -> Frames | ZooError:
        """As :meth:`from_labels`, but what is wrong is returned: for streams that are to outlive a bad frame."""
        try:
            return cls.from_labels(labels, motion)
        except ZooError as error:
            return error

    @classmethod
    def cat(cls, parts: Sequence[Frames]) -> Frames:
        """Join frames along time.

        Raises:
            ZooError: if their motion embeddings have different lengths.
        """
        if len({part.motion.shape[1] for part in parts}) > 1:
            raise ZooError("the motion embeddings of the frames have different lengths: prepare them again")
        labels = torch.cat([part.labels() for part in parts])
        return cls.from_labels(labels, torch.cat([part.motion for part in parts]))

    def to(self, device: torch.device | str) -> Frames:
        """Copy on another device."""
        return Frames(self.camera.to(device), self.head.to(device), self.motion.to(device))


@dataclass(frozen=True)
class Portrait:
    """A photo and what is known of the face in it.

    Attributes:
        image: aligned.
        tracked: one frame.

    Raises:
        ZooError: if there is not exactly one frame.
    """

    image: UInt8[Tensor, "height width 3"]
    tracked: Frames

    def __post_init__(self) -> None:
        if len(self.tracked) != 1:
            raise ZooError(f"a portrait is one photo, not {len(self.tracked)}")

    def pixels(self) -> Float[Tensor, "1 3 height width"]:
        """The photo in [-1, 1]."""
        return from_uint8(self.image[None])


def without_turn(frames: Frames) -> Frames:
    """The same faces with their necks straight."""
    return replace(frames, head=frames.head.without_neck())
