"""One video, or one set of images, opened: frames by number, in memory only while they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import decode_image, has_alpha, list_images
from portraitzoo.media.records import RecordFile
from portraitzoo.media.video import VideoReader


class Reel(Protocol):
    """One video, or a set of images, opened.

    Attributes:
        num_frames: how many frames it has.
        fps: frames per second.
        alpha: whether a channel of transparency was dropped.
    """

    num_frames: int
    fps: float
    alpha: bool

    def frames(self, numbers: Sequence[int]) -> UInt8[Tensor, "time height width 3"]:
        """Frames of these numbers, which rise.

        Raises:
            MediaError: if one is damaged, or they differ in size.
        """


class VideoReel:
    """A video file or a folder of frames."""

    def __init__(self, path: Path, reader: VideoReader) -> None:
        self._reader = reader
        self.num_frames, self.fps = reader.num_frames, reader.fps
        self.alpha = path.is_dir() and file_has_alpha(list_images(path)[0])

    def frames(self, numbers: Sequence[int]) -> UInt8[Tensor, "time height width 3"]:
        """See :class:`Reel`; what lies between is decoded and dropped."""
        first, wanted = numbers[0], set(numbers)
        found: dict[int, Tensor] = {}
        for number, frame in enumerate(self._reader.stream(first), start=first):
            if number in wanted:
                found[number] = frame
            if number == numbers[-1]:
                break
        return torch.stack([found[number] for number in numbers])


class ClipReel:
    """A clip in memory."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self.num_frames, self.fps, self.alpha = len(clip), clip.fps, False

    def frames(self, numbers: Sequence[int]) -> UInt8[Tensor, "time height width 3"]:
        """See :class:`Reel`."""
        return self._clip.frames[list(numbers)]

    def maps(self, names: Collection[str], numbers: Sequence[int]) -> dict[str, Tensor]:
        """Those of the maps that the clip has, for frames of these numbers."""
        return {name: self._clip.maps[name][list(numbers)] for name in names if name in self._clip.maps}


class ImageReel:
    """Single images, decoded as they are asked for."""

    fps = 25.0

    def __init__(self, names: Sequence[str], contents: Callable[[int], bytes]) -> None:
        self._names = names
        self._contents = contents
        self.num_frames = len(names)
        self.alpha = False

    def frames(self, numbers: Sequence[int]) -> UInt8[Tensor, "time height width 3"]:
        """See :class:`Reel`."""
        images = []
        for number in numbers:
            content = self._contents(number)
            self.alpha |= has_alpha(content[:26])
            images.append(decode_image(content, self._names[number]))
        if len({image.shape for image in images}) > 1:
            raise MediaError(f"{self._names[numbers[0]]} and the images after it differ in size: a clip has one size")
        return torch.stack(images)


class RecordReel:
    """The single images of an LMDB."""

    fps = 25.0
    alpha = False

    def __init__(self, records: RecordFile) -> None:
        self._records = records
        self.num_frames = len(records)

    def frames(self, numbers: Sequence[int]) -> UInt8[Tensor, "time height width 3"]:
        """See :class:`Reel`."""
        images = [self._records.frames(number) for number in numbers]
        if len({image.shape for image in images}) > 1:
            raise MediaError(f"record {numbers[0]} and those after it differ in size: a clip has one size")
        return torch.cat(images)


def file_has_alpha(path: Path) -> bool:
    """Whether an image file says in its header that it has a channel of transparency."""
    with path.open("rb") as file:
        return has_alpha(file.read(26))
