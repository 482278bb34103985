"""Clip: the value that every generator, reenactor and avatar of the zoo returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.files import replacing
from portraitzoo.media.arrays import DAMAGE, read_archive, read_array
from portraitzoo.media.frame_folders import SIDECAR, FrameFolder
from portraitzoo.media.images import write_image
from portraitzoo.media.maps import map_pictures
from portraitzoo.media.sheets import contact_sheet
from portraitzoo.media.video import DEFAULT_QUALITY, VideoReader, write_video
from portraitzoo.media.video_files import VIDEO_SUFFIXES

SHEET_FRAMES = 32
SHEET_COLUMNS = 8


class Cameras(Protocol):
    """One camera for every frame; in practice a :class:`portraitzoo.rendering.cameras.Camera`."""

    @property
    def cam2world(self) -> Float[Tensor, "time 4 4"]:
        """Rigid transforms from camera (OpenCV axes) to world."""

    @property
    def intrinsics(self) -> Float[Tensor, "time 3 3"]:
        """Pinhole matrices in units of the image size."""

    def __getitem__(self, index: Any) -> Self: ...


@dataclass(frozen=True, eq=False)
class CameraTrack:
    """The cameras of a clip that was read from disk (``Camera(track.cam2world, track.intrinsics)`` for rendering)."""

    cam2world: Float[Tensor, "time 4 4"]
    intrinsics: Float[Tensor, "time 3 3"]

    def __getitem__(self, index: Any) -> CameraTrack:
        return CameraTrack(self.cam2world[index], self.intrinsics[index])


@dataclass(frozen=True, eq=False)
class Clip:
    """A short video and what its maker knows about it.

    Attributes:
        frames: RGB, on the CPU.
        fps: frames per second.
        cameras: one for each frame, or None.
        maps: further values for each frame by name: ``depth`` [T, R, R] float32 world units along the ray, ``raw``
            [T, R, R, 3] uint8, ``normals`` [T, R, R, 3] float32 unit vectors in world axes, ``position`` [T, R, R, 3]
            float32 world xyz, ``opacity`` [T, R, R] float32 in [0, 1].
        info: where the clip comes from (model, seed, options ...), as JSON has it.

    Raises:
        MediaError: if the parts do not fit together.
    """

    frames: UInt8[Tensor, "time height width 3"]
    fps: float = 25.0
    cameras: Cameras | None = None
    maps: dict[str, Shaped[Tensor, "time ..."]] = field(default_factory=dict)
    info: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = list(self.frames.shape)
        if self.frames.dtype != torch.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise MediaError(f"a clip needs frames uint8 [time, height, width, 3], not {self.frames.dtype} {shape}")
        if not 0 < self.fps < float("inf"):
            raise MediaError(f"a clip needs a positive number of frames per second, not {self.fps}")
        if self.cameras is not None and len(self.cameras.cam2world) != shape[0]:
            raise MediaError(f"a clip of {shape[0]} frames needs as many cameras, not {len(self.cameras.cam2world)}")
        for name, values in self.maps.items():
            if not name.isidentifier() or values.ndim == 0 or values.shape[0] != shape[0]:
                raise MediaError(f"the map {name!r} of shape {list(values.shape)} does not fit {shape[0]} frames")

    def __len__(self) -> int:
        """Number of frames."""
        return self.frames.shape[0]

    def __getitem__(self, index: slice) -> Clip:
        """The clip of some of the frames, with their cameras and maps."""
        if not isinstance(index, slice):
            raise TypeError("a clip is cut by slices, such as clip[0:16]; a single frame is clip.frames[0]")
        return replace(
            self,
            frames=self.frames[index],
            cameras=None if self.cameras is None else self.cameras[index],
            maps={name: values[index] for name, values in self.maps.items()},
        )

    def picture_of(self, name: str) -> Clip:
        """One of the maps as a clip to look at (see :func:`portraitzoo.media.maps.map_pictures` for the colours).

        Raises:
            MediaError: if the clip has no such map, or it is no picture.
        """
        if name not in self.maps:
            raise MediaError(f"the clip has no map {name!r}: it has {', '.join(self.maps) or 'none'}")
        return replace(self, frames=map_pictures(name, self.maps[name]), maps={})

    @staticmethod
    def side_by_side(clips: Sequence[Clip]) -> Clip:
        """One clip that shows several from left to right, each resized to the tallest; the first gives fps and info.

        Raises:
            MediaError: without clips, or if they differ in length.
        """
        lengths = {len(clip) for clip in clips}
        if len(lengths) != 1:
            raise MediaError(f"clips side by side need one length, not {sorted(lengths) or 'none'}: cut them first")
        height = max(clip.frames.shape[1] for clip in clips)
        return Clip(torch.cat([_resized(clip.frames, height) for clip in clips], 2), clips[0].fps, info=clips[0].info)

    def save(self, path: str | Path, *, quality: float = DEFAULT_QUALITY) -> Path:
        """Write the clip; the suffix chooses what is kept.

        ``.mp4``: frames (H.264, with loss), fps and info. ``.png``: a contact sheet of at most 32 frames. ``.npz``:
        everything, exactly. No suffix: a folder with a PNG for each frame, ``clip.json`` (fps, cameras as 25 floats a
        frame, info) and an ``.npy`` for each map; everything, exactly; a folder that is there is replaced.

        Args:
            path: where to.
            quality: of .mp4, 0 to 10 (see :func:`portraitzoo.media.video.write_video`).

        Raises:
            MediaError: for any other suffix, or info that is not JSON.
            ZooError: if the place cannot be written.
        """
        path = Path(path)
        info = self._info_as_json()
        match path.suffix.lower():
            case ".mp4":
                write_video(path, self.frames, self.fps, quality, comment=info)
            case ".png":
                write_image(path, self._sheet())
            case ".npz":
                with replacing(path) as temporary:
                    np.savez_compressed(temporary, **self._arrays(info))
            case "":
                self._save_folder(path)
            case _:
                raise MediaError(
                    f"a clip is saved as .mp4, .npz, .png (contact sheet) or a folder (no suffix), not {path.name}"
                )
        return path

    @classmethod
    def load(cls, path: str | Path) -> Clip:
        """Read a video file, a folder of images (with or without ``clip.json``) or an ``.npz`` of :meth:`save`.

        Raises:
            MediaError: if it cannot be read; the message names the file and what is wrong with it.
        """
        path = Path(path)
        if path.is_dir():
            return cls._load_folder(path)
        if path.suffix.lower() == ".npz":
            return cls._load_arrays(path)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            with VideoReader(path) as reader:
                return cls(reader.read(), reader.fps, info=_provenance(reader.comment))
        known = ", ".join(sorted(VIDEO_SUFFIXES | {".npz"}))
        raise MediaError(f"{path} is no clip: give a video ({known}) or a folder of images")

    def _repr_png_(self) -> bytes:
        """The contact sheet, which is how a notebook shows a clip."""
        return cv2.imencode(".png", self._sheet().numpy()[..., ::-1])[1].tobytes()

    def _sheet(self) -> UInt8[Tensor, "height width 3"]:
        shown = torch.linspace(0, len(self) - 1, min(len(self), SHEET_FRAMES)).round().long()
        return contact_sheet(self.frames[shown], SHEET_COLUMNS)

    def _info_as_json(self) -> str:
        try:
            return json.dumps(self.info)
        except (TypeError, ValueError) as error:
            raise MediaError(f"a clip's info must be plain JSON values: {error}") from error

    def _arrays(self, info: str) -> dict[str, Any]:
        arrays: dict[str, Any] = {"frames": self.frames.numpy(), "fps": np.float64(self.fps), "info": np.array(info)}
        if self.cameras is not None:
            arrays["cam2world"] = self.cameras.cam2world.detach().cpu().numpy()
            arrays["intrinsics"] = self.cameras.intrinsics.detach().cpu().numpy()
        return arrays | {f"map.{name}": values.detach().cpu().numpy() for name, values in self.maps.items()}

    @classmethod
    def _load_arrays(cls, path: Path) -> Clip:
        try:
            arrays = read_archive(path)
            cameras = None
            if "cam2world" in arrays:
                cameras = CameraTrack(torch.from_numpy(arrays["cam2world"]), torch.from_numpy(arrays["intrinsics"]))
            maps = {n.removeprefix("map."): torch.from_numpy(a) for n, a in arrays.items() if n.startswith("map.")}
            info = dict(json.loads(str(arrays["info"])))
            return cls(torch.from_numpy(arrays["frames"]), float(arrays["fps"]), cameras, maps, info)
        except (*DAMAGE, KeyError, MediaError) as error:
            raise MediaError(
                f"{path} is no clip of portraitzoo, or it is damaged: write it again ({_first_line(error)})"
            ) from error

    def _save_folder(self, path: Path) -> None:
        described: dict[str, object] = {"fps": self.fps, "info": self.info, "maps": sorted(self.maps)}
        if self.cameras is not None:
            labels = torch.cat([self.cameras.cam2world.flatten(1), self.cameras.intrinsics.flatten(1)], dim=1)
            described["cameras"] = labels.tolist()
        with replacing(path) as temporary:
            temporary.mkdir()
            for index, frame in enumerate(self.frames):
                write_image(temporary / f"{index:06d}.png", frame)
            for name, values in self.maps.items():
                np.save(temporary / f"{name}.npy", values.detach().cpu().numpy())
            (temporary / SIDECAR).write_text(json.dumps(described))

    @classmethod
    def _load_folder(cls, path: Path) -> Clip:
        folder = FrameFolder(path)
        described = folder.sidecar
        with VideoReader(path) as reader:
            frames = reader.read()
        try:
            cameras = None
            if described.get("cameras") is not None:
                labels = torch.tensor(described["cameras"], dtype=torch.float32)
                cameras = CameraTrack(labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3))
            names = [str(name) for name in described.get("maps", [])]  # type: ignore[attr-defined]
            if not all(name.isidentifier() for name in names):
                raise ValueError(f"map names {names}")
            maps = {name: torch.from_numpy(read_array(path / f"{name}.npy")) for name in names}
            return cls(frames, folder.fps, cameras, maps, dict(described.get("info", {})))  # type: ignore[call-overload]
        except (OSError, ValueError, TypeError, RuntimeError, IndexError, EOFError, MediaError) as error:
            raise MediaError(
                f"{path / SIDECAR} does not describe the frames beside it: write it again ({_first_line(error)})"
            ) from error


def _resized(frames: UInt8[Tensor, "time height width 3"], height: int) -> UInt8[Tensor, "time new_height new_width 3"]:
    if frames.shape[1] == height:
        return frames
    size = (round(frames.shape[2] * height / frames.shape[1]), height)
    return torch.from_numpy(
        np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames.numpy()])
    )


def _provenance(comment: str) -> dict[str, object]:
    """Info that ``Clip.save`` left in a video's comment; other people's comments are not ours to parse."""
    try:
        info = json.loads(comment)
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
