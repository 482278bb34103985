"""What happens to frames between a file and a feature network: crop, size, rounding, compression."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import CameraTrack, Clip
from portraitzoo.media.degrade import jpeg_coded
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.resizing import bilinear
from portraitzoo.metrics.sources import Item, Need, Source


@dataclass(frozen=True, eq=False)
class Prepared(Clip):
    """A clip as feature networks get it: its frames may be float32 0..255 too.

    Attributes:
        traits: what was noticed before anything was changed: size, frame rate, "grey", "alpha" ...
    """

    traits: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.frames.dtype == torch.uint8:
            super().__post_init__()

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays: tensors would travel between processes through shared memory, which containers have little of.
        maps = {name: values.numpy() for name, values in self.maps.items()}
        track = self.cameras and (self.cameras.cam2world.numpy(), self.cameras.intrinsics.numpy())
        return _rebuilt, (self.frames.numpy(), self.fps, track, maps, self.traits)


def _rebuilt(
    frames: np.ndarray,
    fps: float,
    track: tuple[np.ndarray, np.ndarray] | None,
    maps: dict[str, np.ndarray],
    traits: tuple[str, ...],
) -> Prepared:
    tensors = {name: torch.from_numpy(values) for name, values in maps.items()}
    cameras = track and CameraTrack(*map(torch.from_numpy, track))
    return Prepared(torch.from_numpy(frames), fps, cameras, tensors, traits=traits)


@dataclass(frozen=True)
class Preparation:
    """How the items of one source are made ready.

    Attributes:
        source: where they come from.
        unit: what they are.
        protocol: as the side follows it.
        maps: maps that are needed.
        recoded: whether the protocol's compression is applied here, after resizing: that of a model's clips was.
    """

    source: Source
    unit: Need
    protocol: Protocol
    maps: Collection[str] = ()
    recoded: bool = False

    def load(self, item: Item) -> Prepared:
        """One item, ready to be measured.

        Raises:
            ZooError: if it cannot be loaded or holds numbers that are not finite.
        """
        clip = self.source.load(item, self.unit, self.protocol, self.maps)
        # Of pairs a map may say by NaN that there is nothing, such as a face that was not found.
        for name in set(self.maps) & set(clip.maps) if self.unit != "pairs" else ():
            if not torch.isfinite(clip.maps[name]).all():
                raise ZooError(f"the {name} map of {item.name} holds numbers that are not finite")
        seen = traits(clip)
        if self.unit in ("clips", "images"):
            frames = fitted(clip.frames, self.protocol)
            if self.recoded and self.protocol.compression == "jpeg":
                frames = jpeg_coded(Clip(rounded(frames))).frames
            return Prepared(frames, clip.fps, traits=seen)
        return Prepared(clip.frames, clip.fps, clip.cameras, clip.maps, traits=seen)

    def load_or_say_why(self, item: Item) -> Prepared | ZooError:
        """One item, or what is wrong with it."""
        try:
            return self.load(item)
        except ZooError as error:
            return error


def fitted(
    frames: UInt8[Tensor, "time height width 3"], protocol: Protocol
) -> UInt8[Tensor, "time size size 3"] | Float[Tensor, "time size size 3"]:
    """Frames cropped and resized by a protocol's rules; those that fit already are handed back as they are."""
    if protocol.crop == "centre":
        frames = central_square(frames)
    size = protocol.size
    if size is None or tuple(frames.shape[1:3]) == (size, size):
        return frames
    match protocol.resize:
        case "torch":
            images = bilinear(frames.permute(0, 3, 1, 2).float(), size, size).permute(0, 2, 3, 1)
            return images.contiguous() if protocol.resized == "floats" else rounded(images)
        case "lanczos":
            # Pillow filters over all pixels that fall into one, which OpenCV's filter of that name does not.
            pictures = [
                Image.fromarray(frame).resize((size, size), Image.Resampling.LANCZOS) for frame in frames.numpy()
            ]
            return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        case "nearest":
            return _resized(frames, size, cv2.INTER_NEAREST)
        case _:
            return _resized(frames, size, cv2.INTER_LINEAR)


def central_square(frames: UInt8[Tensor, "time height width 3"]) -> UInt8[Tensor, "time side side 3"]:
    """The largest square in the middle (an odd rest goes to the right and the bottom)."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return frames[:, top : top + side, left : left + side]


def rounded(frames: Tensor) -> UInt8[Tensor, "time height width 3"]:
    """Frames 0..255 as bytes, the nearest ones."""
    return frames if frames.dtype == torch.uint8 else (frames + 0.5).clamp(0, 255).to(torch.uint8)


def traits(clip: Clip) -> tuple[str, ...]:
    """What a report counts: picture size, frame rate of what moves, grey, dropped alpha, resized targets."""
    height, width = clip.frames.shape[1:3]
    found = [f"{width}x{height}"] + ([f"{clip.fps:g} fps"] if len(clip) > 1 else [])
    frame = clip.frames[0]
    if bool((frame[..., 0] == frame[..., 1]).all() and (frame[..., 1] == frame[..., 2]).all()):
        found.append("grey")
    return (*found, *(name for name in ("alpha", "resized") if clip.info.get(name)))


def _resized(frames: UInt8[Tensor, "time height width 3"], size: int, rule: int) -> UInt8[Tensor, "time size size 3"]:
    pictures = [cv2.resize(np.ascontiguousarray(frame), (size, size), interpolation=rule) for frame in frames.numpy()]
    return torch.from_numpy(np.stack(pictures))
