"""Prepared faces: what Portrait4D needs to know of a photo or a driving frame, in memory and in the authors' files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.faces.flame_parameters import LABEL_SIZE as HEAD_SIZE
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.motion_embedding import MotionEncoder, crop_face
from portraitzoo.media.images import from_uint8, list_images, read_image
from portraitzoo.methods.portrait4d.cameras import camera_of_label, label_of_camera
from portraitzoo.rendering.cameras import LABEL_SIZE as CAMERA_SIZE
from portraitzoo.rendering.cameras import Camera

IMAGES, LANDMARKS, MOTIONS = "align_images", "3dldmks_align", "motion_feats"
LABELS = {"fitted": "flame_optim_params", "simplified": "bfm2flame_params_simplified"}
"""Folders of head parameters: fitted to each picture, or converted from another head model's (no gaze)."""
FRAME_LABEL = CAMERA_SIZE + HEAD_SIZE

LabelKind = Literal["fitted", "simplified"]


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


def read_frames(
    folder: str | Path, *, parameters: LabelKind = "fitted", encoder: MotionEncoder | None = None
) -> Frames:
    """Tracked frames of a prepared folder, in the order of their names.

    Args:
        folder: holds ``flame_optim_params/NAME.npy`` or ``bfm2flame_params_simplified/NAME.npy``, and
            ``motion_feats/NAME.npy``, or else ``align_images`` and ``3dldmks_align``.
        parameters: which of the head parameters.
        encoder: embeds the motion of frames without ``motion_feats``.

    Raises:
        ZooError: if the folder lacks something; the message names it.
    """
    folder = Path(folder)
    names = _names(folder, parameters)
    return _frames(folder, names, parameters, encoder)


def read_portrait(
    folder: str | Path,
    name: str | None = None,
    *,
    parameters: LabelKind = "fitted",
    encoder: MotionEncoder | None = None,
) -> Portrait:
    """A photo of a prepared folder; folder and arguments as in :func:`read_frames`.

    Args:
        folder: holds ``align_images`` too.
        name: of the photo without suffix; None for the first.
        parameters: which of the head parameters.
        encoder: embeds the motion of a photo without ``motion_feats``.

    Raises:
        ZooError: if the folder lacks something; the message names it.
    """
    folder = Path(folder)
    names = _names(folder, parameters)
    if name is not None and name not in names:
        raise ZooError(f"{folder / LABELS[parameters]} has no parameters for {name}: prepare the photo first")
    chosen = names[0] if name is None else name
    return Portrait(read_image(_picture(folder, chosen)), _frames(folder, [chosen], parameters, encoder))


def write_frames(folder: str | Path, frames: Frames, names: list[str] | None = None) -> Path:
    """Write frames as :func:`read_frames` reads them, as fitted parameters.

    Args:
        folder: to write to.
        frames: tracked frames.
        names: of the files, without suffix; numbers where None.
    """
    folder, labels = Path(folder), frames.labels()
    for part, rows in ((LABELS["fitted"], labels), (MOTIONS, frames.motion)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index, row in enumerate(rows):
            name = names[index] if names else f"{index:05d}"
            np.save(folder / part / f"{name}.npy", row.cpu().numpy().astype(np.float32))
    return folder


def without_turn(frames: Frames) -> Frames:
    """The same faces with their necks straight."""
    return replace(frames, head=frames.head.without_neck())


def _names(folder: Path, parameters: LabelKind) -> list[str]:
    place = folder / LABELS[parameters]
    names = sorted(path.stem for path in place.glob("*.npy"))
    if not names:
        raise ZooError(f"there are no head parameters ({LABELS[parameters]}/*.npy) in {folder}: prepare it first")
    return names


def _frames(folder: Path, names: list[str], parameters: LabelKind, encoder: MotionEncoder | None) -> Frames:
    labels = torch.stack([_array(folder / LABELS[parameters] / f"{name}.npy", (FRAME_LABEL,)) for name in names])
    motions = []
    for name in names:
        path = folder / MOTIONS / f"{name}.npy"
        if path.is_file():
            motions.append(_array(path, (-1,)))
        elif encoder is not None:
            motions.append(_embed(encoder, folder, name))
        else:
            raise ZooError(f"{folder} has no motion embedding of {name} ({MOTIONS}/{name}.npy): prepare it first")
    if len({len(motion) for motion in motions}) > 1:
        raise ZooError(f"the motion embeddings in {folder / MOTIONS} have different lengths: prepare them again")
    return Frames.from_labels(labels, torch.stack(motions))


@torch.no_grad()
def _embed(encoder: MotionEncoder, folder: Path, name: str) -> Float[Tensor, " motion_dim"]:
    landmarks = _array(folder / LANDMARKS / f"{name}.npy", (-1, -1))[None, :, :2]
    device = next(encoder.parameters()).device
    image = from_uint8(read_image(_picture(folder, name))[None]).to(device)
    return encoder(crop_face(image, landmarks.to(device)))[0].cpu()


def _picture(folder: Path, name: str) -> Path:
    found = [path for path in list_images(folder / IMAGES) if path.stem == name]
    if not found:
        raise MediaError(f"there is no picture {IMAGES}/{name} in {folder}")
    return found[0]


def _array(path: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise MediaError(f"cannot read {path}: it is no array of numbers") from error
    array = array.reshape(-1) if len(shape) == 1 else array
    fits = array.ndim == len(shape) and all(want in (-1, size) for want, size in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in "fiu" or not fits:
        raise MediaError(f"{path} holds {array.dtype} {list(array.shape)}, not {list(shape)} numbers (-1: any)")
    return torch.from_numpy(array.astype(np.float32))
