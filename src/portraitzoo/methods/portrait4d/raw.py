"""Raw photos and videos: faces are found, aligned and tracked when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import MediaError, WeightsUnavailableError, ZooError
from portraitzoo.faces.portrait_tracker import LOOK_AGAIN, SIDE, PortraitTracker, TrackedFace
from portraitzoo.hub.faces.tracker import shared_tracker
from portraitzoo.media.images import IMAGE_SUFFIXES, list_images, read_image
from portraitzoo.media.video import VideoReader
from portraitzoo.media.video_files import VIDEO_SUFFIXES
from portraitzoo.methods.portrait4d.prepared import Frames
from portraitzoo.methods.portrait4d.sources import FaceSource


class RawFootage(FaceSource):
    """Pictures as a camera took them, with a face in each. Those of a folder are looked at one by one; in a video the
    face of one frame is looked for where it was in the frame before.

    Args:
        path: a picture, a folder of pictures, or a video file.
        tracker: finds and tracks; None for the published networks, downloaded when needed.
        device: where those compute; None for the best one here.
        side: that the network takes, in pixels; aligned pictures have 512.
        keep: whether all aligned pictures are kept once they were looked at, for :meth:`picture`; else the last is.
        look_again: as in :meth:`~portraitzoo.faces.portrait_tracker.PortraitTracker.frames`.

    Raises:
        MediaError: if there is nothing to look at.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tracker: PortraitTracker | None = None,
        device: torch.device | str | None = None,
        side: int = SIDE,
        keep: bool = False,
        look_again: int | None = LOOK_AGAIN,
    ) -> None:
        self.path, self.side, self.keep, self.look_again = Path(path), side, keep, look_again
        self._tracker, self._device = tracker, device
        self._files: dict[str, Path] = {}
        self._kept: dict[str, TrackedFace] = {}
        self.is_video = self.path.suffix.lower() in VIDEO_SUFFIXES and self.path.is_file()
        if self.is_video:
            with VideoReader(self.path) as reader:
                self.names = [f"{number:05d}" for number in range(reader.num_frames)]
            return
        found = list_images(self.path) if self.path.is_dir() else [self.path]
        self._files = {file.stem: file for file in found}
        self.names = list(self._files)
        if not found:
            raise MediaError(f"there are no pictures in {self.path}")
        if len(self._files) < len(found):
            raise MediaError(f"{self.path} holds pictures that differ in their suffix only: rename one of each")

    @property
    def tracker(self) -> PortraitTracker:
        """The tracker, loaded when first asked for.

        Raises:
            WeightsUnavailableError: if a network's weights are not here and cannot be fetched.
        """
        if self._tracker is None:
            self._tracker = shared_tracker(self._device)
        return self._tracker

    def faces(self, names: Iterable[str] | None = None) -> Iterator[tuple[str, TrackedFace | ZooError]]:
        """Every picture's name and face in order, or why there is none. Memory does not grow with a video.

        Args:
            names: those that are wanted, of photos; None for all. A video's frames all come.

        Raises:
            WeightsUnavailableError: as :attr:`tracker`.
        """
        tracker = self.tracker
        if not self.is_video:
            for name in self.names if names is None else names:
                try:
                    yield name, self.face(name)
                except WeightsUnavailableError:
                    raise
                except ZooError as error:
                    yield name, error
            return
        with VideoReader(self.path) as reader:
            for name, found in zip(self.names, tracker.frames(reader.stream(), self.look_again), strict=False):
                yield name, self._named(name, found) if isinstance(found, ZooError) else found

    def face(self, name: str) -> TrackedFace:
        """The face of one picture; of a video's frame only if it is kept.

        Raises:
            WeightsUnavailableError: as :attr:`tracker`.
            MediaError: if the picture is damaged, or no face is found in it.
        """
        if name in self._kept:
            return self._kept[name]
        if self.is_video:
            return self._search(name)
        if name not in self._files:
            raise MediaError(f"there is no picture {name} in {self.path}")
        tracker, image = self.tracker, read_image(self._files[name])
        try:
            found = tracker.photo(image)
        except ZooError as error:
            raise self._named(name, error) from error
        if not self.keep:
            self._kept.clear()  # but for the one that is asked for next: a picture and what is known of it
        self._kept[name] = found
        return found

    def frame(self, name: str) -> Frames:
        """What is known of one picture.

        Raises:
            ZooError: as :meth:`face`.
        """
        return frames_of(self.face(name))

    def picture(self, name: str) -> UInt8[Tensor, "512 512 3"]:
        """One of the pictures, aligned.

        Raises:
            ZooError: as :meth:`face`.
        """
        return self.face(name).image

    def check_size(self) -> None:
        """Refuse a network that takes other pictures than aligned ones of 512 pixels.

        Raises:
            ZooError: then.
        """
        if self.side != SIDE:
            raise ZooError(
                f"raw footage such as {self.path} is aligned to {SIDE} pixels, and this network takes {self.side}: "
                "give a prepared folder"
            )

    def attempts(self) -> Iterator[Frames | ZooError]:
        """Every frame in order, or why there is none."""
        for name, found in self.faces():
            if isinstance(found, ZooError):
                yield found
                continue
            if self.keep:
                self._kept[name] = found
            yield frames_of(found)

    def _search(self, wanted: str) -> TrackedFace:
        for name, found in self.faces():
            if name == wanted:
                if isinstance(found, ZooError):
                    raise found
                self._kept[name] = found
                return found
        raise MediaError(f"there is no frame {wanted} in {self.path}")

    def _named(self, name: str, error: ZooError) -> MediaError:
        return MediaError(f"{self._files.get(name, f'{self.path}, frame {name}')}: {error}")


def frames_of(face: TrackedFace) -> Frames:
    """A tracked face as one frame."""
    return Frames.from_labels(face.label[None], face.motion[None])


def is_raw(path: str | Path) -> bool:
    """Whether there is a picture or a video at a path, or a folder that directly holds pictures."""
    path = Path(path)
    if path.is_dir():
        return any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
    return path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
