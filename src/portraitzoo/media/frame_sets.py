"""Sets of videos from which single frames are drawn: folders of frames, video files, or an archive of frames."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.media.frame_archives import ARCHIVE_SUFFIX, FrameArchive
from portraitzoo.media.images import IMAGE_SUFFIXES, decode_image, is_visible, read_image
from portraitzoo.media.video import VideoReader
from portraitzoo.media.video_files import VIDEO_SUFFIXES


class FrameVideo(Protocol):
    """A video whose frames are read one by one.

    Attributes:
        name: where it is, for people: ``class/video``.
        group: its class: name of the folder above, empty if there is none.
    """

    name: str
    group: str

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        ...

    def read(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """One frame as RGB.

        Raises:
            MediaError: if it is damaged.
        """
        ...

    def sizes(self) -> Sequence[tuple[int, int]]:
        """Width and height of every frame (of all together where they cannot differ), without decoding them."""
        ...


class FrameFiles:
    """A folder of image files, in the order of their names as text: numbers must be padded with zeros.

    Args:
        folder: the folder.
        group: class of the video.
    """

    def __init__(self, folder: Path, group: str) -> None:
        self.folder, self.group = folder, group
        self.name = f"{group}/{folder.name}" if group else folder.name

    @cached_property
    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if _is_image(path))

    @property
    def num_frames(self) -> int:
        """Number of image files."""
        return len(self._names)

    def read(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """One frame as RGB."""
        return read_image(self.folder / self._names[index])

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of every frame, from the files' headers."""
        found = []
        for name in self._names:
            try:
                with Image.open(self.folder / name) as image:
                    found.append(image.size)
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise MediaError(f"{self.folder / name} is no image that can be read: copy it again") from error
        return found


class VideoFrames:
    """A video file, opened anew for every frame: slow, but nothing needs to be unpacked.

    Args:
        path: the file.
        group: class of the video.
    """

    def __init__(self, path: Path, group: str) -> None:
        self.path, self.group = path, group
        self.name = f"{group}/{path.name}" if group else path.name

    @cached_property
    def num_frames(self) -> int:
        """Number of frames."""
        with VideoReader(self.path) as reader:
            return reader.num_frames

    def read(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """One frame as RGB."""
        with VideoReader(self.path) as reader:
            return reader.read(index, 1)[0]

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height, which all frames share."""
        with VideoReader(self.path) as reader:
            return [(reader.width, reader.height)]


class ArchivedFrames:
    """A video of an archive.

    Args:
        archive: shared by all videos.
        name: of the video in the archive.
    """

    def __init__(self, archive: FrameArchive, name: str) -> None:
        self.archive, self.name = archive, name
        self.group = name.rpartition("/")[0].rpartition("/")[2]
        self.num_frames = len(archive.videos[name])

    def read(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """One frame as RGB."""
        return decode_image(self.archive.read(self.name, index), f"frame {index} of {self.name}")

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of every frame, from the images' headers."""
        found = []
        for index in range(self.num_frames):
            try:
                with Image.open(io.BytesIO(self.archive.read(self.name, index))) as image:
                    found.append(image.size)
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise MediaError(
                    f"frame {index} of {self.name} in {self.archive.path} is no image that can be read"
                ) from error
        return found


def find_frame_videos(root: str | Path) -> list[FrameVideo]:
    """Videos of a data set, in the order of their names.

    Layouts: ``root/class/video/frame.png``; ``root/video/frame.png``; ``root/class/video.mp4``; ``root/video.mp4``; an
    archive ``root.zip`` of one of the first two.

    Raises:
        MediaError: if there is nothing there, or no video in it.
    """
    root = Path(root)
    if root.is_file() and root.suffix.lower() == ARCHIVE_SUFFIX:
        archive = FrameArchive(root)
        return [ArchivedFrames(archive, name) for name in archive.videos]
    if not root.is_dir():
        raise MediaError(f"there is no folder or archive of frames {root}: give class/video/frame.png or a .zip of it")
    found = _videos_in(root, "")
    for folder in _folders(root):
        if not isinstance(_video_at(folder, ""), FrameFiles):
            found += _videos_in(folder, folder.name)
    if not found:
        raise MediaError(f"{root} holds no videos: expected class/video/frame.png, or video files")
    return found


def _videos_in(folder: Path, group: str) -> list[FrameVideo]:
    videos = (_video_at(path, group) for path in sorted(folder.iterdir(), key=lambda path: path.name))
    return [video for video in videos if video is not None]


def _video_at(path: Path, group: str) -> FrameVideo | None:
    if not is_visible(path):
        return None
    if path.is_dir():
        return FrameFiles(path, group) if any(map(_is_image, path.iterdir())) else None
    return VideoFrames(path, group) if path.suffix.lower() in VIDEO_SUFFIXES else None


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and is_visible(path))


def _is_image(path: Path) -> bool:
    return is_visible(path) and path.suffix.lower() in IMAGE_SUFFIXES
