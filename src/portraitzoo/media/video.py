"""Video in and out: reading by frame index from files or frame folders, and writing H.264."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.files import replacing
from portraitzoo.media.frame_folders import FrameFolder
from portraitzoo.media.images import is_visible, list_images, natural_order
from portraitzoo.media.video_files import VIDEO_SUFFIXES, VideoFile

DEFAULT_QUALITY = 7.0


class VideoReader:
    """Frames of a video file (.mp4, .mov, .mkv, .webm, .avi) or of a folder of images.

    Indices are exact: ``read(40, 16)`` are frames 40 to 55 as a decoder that starts at the beginning would show them;
    the reader seeks to the key frame before and decodes from there. Use it as a context manager or ``close()`` it. It
    is not shared between threads, nor sent to other processes: let each open its own.

    Attributes:
        path: file or folder.
        num_frames: number of frames.
        fps: frames per second (25 where nothing says).
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        comment: the file's free text, empty if there is none.

    Raises:
        MediaError: if the file is absent, empty, cut off, damaged or without pictures; the message names it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._source = FrameFolder(path) if self.path.is_dir() else VideoFile(path)
        self.num_frames = self._source.num_frames
        self.fps = self._source.fps
        self.comment = self._source.comment
        self.height, self.width = self._source.size

    def read(self, start: int = 0, count: int | None = None) -> UInt8[Tensor, "time height width 3"]:
        """Frames ``start`` to ``start + count - 1`` as RGB; without ``count`` all from ``start``.

        Raises:
            MediaError: if the clip has not that many frames, or one cannot be decoded.
        """
        count = self.num_frames - start if count is None else count
        if start < 0 or count < 1 or start + count > self.num_frames:
            raise MediaError(
                f"{self.path} has {self.num_frames} frames: it has no window of {count} from frame {start}"
            )
        frames = np.empty((count, self.height, self.width, 3), dtype=np.uint8)
        for index, frame in enumerate(itertools.islice(self.stream(start), count)):
            frames[index] = frame.numpy()
        return torch.from_numpy(frames)

    def stream(self, start: int = 0) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """Frames from ``start`` on, RGB, one at a time; memory does not grow with the length.

        Raises:
            MediaError: at the first frame that cannot be decoded.
        """
        for frame in self._source.stream(start):
            if frame.shape[:2] != (self.height, self.width):
                raise MediaError(f"{self.path} changes its picture size midway: convert it to one size")
            yield torch.from_numpy(frame)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __len__(self) -> int:
        return self.num_frames

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_video(
    path: str | Path,
    frames: UInt8[Tensor, "time height width 3"] | Iterable[UInt8[Tensor, "height width 3"]],
    fps: float = 25.0,
    quality: float = DEFAULT_QUALITY,
    comment: str = "",
) -> Path:
    """Write RGB frames as an .mp4 that plays everywhere (H.264, yuv420p, index in front).

    Equal input gives equal bytes: one encoder thread, no dates. Frames are taken one at a time, so a generator of them
    needs no memory for the clip. The format has only even sizes: an odd height or width grows by one repeated line.

    Args:
        path: ends in .mp4.
        frames: any iterable of 8-bit frames of one size.
        fps: frames per second, above 0.
        quality: 0 (smallest) to 10 (best), the scale of imageio: the constant rate factor is ``51 * (1 -
            quality / 10)``, cut to a whole number. PV3D's own evaluation clips were written at 5.
        comment: free text kept in the container.

    Raises:
        MediaError: for another suffix, no frames, frames that differ in size, or an impossible fps or quality.
        ZooError: if the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise MediaError(f"videos are written as .mp4, not {path.suffix or 'without a suffix'}: rename {path.name}")
    if not 0 < fps <= 1000 or not 0 <= quality <= 10:
        raise MediaError(f"a video needs 0 < fps <= 1000 and 0 <= quality <= 10, not fps {fps} and quality {quality}")
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise MediaError(f"no frames to write to {path}: a video needs at least one")
    height, width = first.shape[0], first.shape[1]
    rate = Fraction(fps).limit_denominator(1001)
    with replacing(path) as temporary:
        container_options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(temporary), "w", format="mp4", container_options=container_options) as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(int(51 * (1 - quality / 10)))})
            stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
            stream.thread_count = 1
            stream.codec_context.time_base = 1 / rate
            for index, frame in enumerate(itertools.chain([first], remaining)):
                if frame.shape != (height, width, 3) or frame.dtype != torch.uint8:
                    raise MediaError(
                        f"frame {index} of {path.name} is {frame.dtype} {list(frame.shape)}, not uint8 "
                        f"[{height}, {width}, 3] as the first"
                    )
                padded = np.pad(frame.cpu().numpy(), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
                picture.pts = index
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    return path


def find_videos(folder: str | Path) -> list[Path]:
    """Clips directly in ``folder``: video files and folders of images, in natural order of their names.

    A path that is itself a clip (a video file, or a folder with images in it) is a list of one.

    Raises:
        MediaError: if there is nothing there, or no clip in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise MediaError(f"{folder} does not exist: give a video, or a folder of videos or of frame folders")
    if folder.is_file():
        return [folder]
    inside = [path for path in folder.iterdir() if is_visible(path)]
    clips = [
        path
        for path in inside
        if (path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()) or (path.is_dir() and list_images(path))
    ]
    if not clips and list_images(folder):
        return [folder]
    if not clips:
        raise MediaError(
            f"{folder} holds no videos: put {', '.join(sorted(VIDEO_SUFFIXES))} files or frame folders in it"
        )
    return sorted(clips, key=natural_order)
