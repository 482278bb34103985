"""Videos as folders of frames, and folders of frames as one archive: what 3D-Aware Video Generation trains on.

What one loading process delivers of frames of 256 pixels (synthetic heads, files in the system's cache; images per
second of processor time of one core):

* folder: 550 as .png, 1130 as .jpg;
* archive: 580 and 1530;
* video files: 193 (clips of 24 frames of 128 pixels; longer and larger ones are slower).

On a local disk decoding is most of it. The recipes' 8 clips of a GPU are 16 images an update, so that a single process
keeps up with 34 updates a second; they take three. ``zoo preprocess read-speed`` measures the same where the data lie.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.files import replacing
from portraitzoo.media.frame_archives import write_frame_archive
from portraitzoo.media.frame_sets import find_frame_videos
from portraitzoo.media.images import IMAGE_SUFFIXES, is_visible, write_image
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.methods.threedvidgen.data import FramePairs
from portraitzoo.preprocess.sessions import claim, run_jobs

Progress = Callable[[int, int], None]
FrameFormat = Literal["png", "jpg"]


def extract_frames(
    videos: str | Path,
    out: str | Path,
    resolution: int = 256,
    every: int = 1,
    crop: bool = True,
    format: FrameFormat = "png",
    limit: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write ``out/CLASS/VIDEO/%07d.png`` for every video: the layout of the released training sets.

    Frames are cropped to the square in the middle and resized (area average where they shrink). Videos that are
    already there are kept, so that an interrupted run goes on where it stopped; a video's folder is whole or absent.

    The published sets: FaceForensics and MEAD at 256 pixels; TaiChi at 128, every 4th frame.

    Args:
        videos: a video, or a folder of videos or of frame folders; its sub-folders are classes (or splits: train, val).
            Videos directly in it are of the class ``videos``.
        out: folder of the frames.
        resolution: side of the frames, pixels.
        every: keep every n-th frame, beginning with the first; they are numbered anew.
        crop: False refuses pictures that are not square instead of cropping them.
        format: ``png`` (without loss) or ``jpg`` (quality 95, a third of the size).
        limit: keep at most so many frames of a video; None for all.
        workers: processes.
        progress: called with the numbers of finished and of all videos, after each.

    Returns:
        The folder.

    Raises:
        MediaError: for a video that cannot be read, or is not square without ``crop``.
        ZooError: for impossible numbers, a folder that holds frames of other settings, or a disk that is full.
    """
    for name, value, least in (("resolution", resolution, 8), ("every", every, 1), ("workers", workers, 1)):
        if value < least:
            raise ZooError(f"{name} must be at least {least}, not {value}")
    if limit is not None and limit < 1:
        raise ZooError(f"limit must be at least 1, not {limit}")
    root = Path(out)
    found = _find(Path(videos))
    claim(root, {"resolution": resolution, "every": every, "crop": crop, "format": format, "limit": limit})
    jobs = [
        _Extraction(path, root / group / path.stem, resolution, every, crop, format, limit) for group, path in found
    ]
    folder, count = Counter(job.folder for job in jobs).most_common(1)[0]
    if count > 1:
        raise ZooError(f"{count} videos would all be written to {folder}: give them different names")
    missing = [job for job in jobs if not job.folder.exists()]
    done = len(jobs) - len(missing)
    if progress and done:
        progress(done, len(jobs))
    for finished, _ in enumerate(run_jobs(_extract, missing, workers), start=done + 1):
        if progress:
            progress(finished, len(jobs))
    return root


def archive_frames(frames: str | Path, out: str | Path, progress: Progress | None = None) -> Path:
    """Pack folders of frames into one uncompressed zip file, which training reads in their place.

    Args:
        frames: folder of ``class/video/frame.png`` or ``video/frame.png``.
        out: the archive, ending in .zip.
        progress: called with the numbers of packed and of all frames, after each.

    Returns:
        The archive.

    Raises:
        MediaError: if there are no frames, or ``out`` is no .zip.
        ZooError: if the place cannot be written.
    """
    root = Path(frames)
    if not root.is_dir():
        raise MediaError(f"there is no folder of frames {root}")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and is_visible(path))
    if not files:
        raise MediaError(f"{root} holds no frames: expected class/video/frame.png")

    def entries() -> Iterator[tuple[str, bytes]]:
        for done, path in enumerate(files, start=1):
            yield path.relative_to(root).as_posix(), path.read_bytes()
            if progress:
                progress(done, len(files))

    return write_frame_archive(out, entries())


def read_speed(data: str | Path, resolution: int = 256, window: int = 16, seconds: float = 3.0) -> float:
    """Images per second that one loading process delivers in training: reading, decoding, cropping, resizing.

    Args:
        data: folder of frames, of videos, or an archive, as training takes it.
        resolution: side of the frames that the network sees, pixels.
        window: frames of a window.
        seconds: how long to measure.

    Raises:
        MediaError: if there is nothing to read.
    """
    pairs = FramePairs(find_frame_videos(data), resolution, window=window)
    if not len(pairs):
        raise MediaError(f"all videos of {data} are shorter than a window of {window} frames")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loading process
    try:
        begin, images = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            pairs[images, images % len(pairs)]
            images += 2
        return images / (time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Extraction:
    video: Path
    folder: Path
    resolution: int
    every: int
    crop: bool
    format: FrameFormat
    limit: int | None


def _find(root: Path) -> list[tuple[str, Path]]:
    """Class and path of every video, in the order of their names."""
    if root.is_file():
        return [("videos", root)]
    if not root.is_dir():
        raise MediaError(f"{root} does not exist: give a video, or a folder of videos")
    found = [("videos", path) for path in _videos(root)]
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and is_visible(path)):
        if folder not in {path for _, path in found}:
            found += [(folder.name, path) for path in _videos(folder)]
    if not found:
        raise MediaError(f"{root} holds no videos, nor do the folders in it")
    return found


def _videos(folder: Path) -> list[Path]:
    try:
        return [path for path in find_videos(folder) if path != folder]
    except MediaError:
        return []


def _extract(job: _Extraction) -> Path:
    with VideoReader(job.video) as reader:
        if not job.crop and reader.width != reader.height:
            raise MediaError(
                f"{job.video} is {reader.width}x{reader.height}, not square: crop it to the face, or let the middle "
                "be cut out"
            )
        with replacing(job.folder) as temporary:
            kept = 0
            for index, frame in enumerate(reader.stream()):
                if index % job.every == 0:
                    picture = square_crop(frame.numpy(), job.resolution)
                    write_image(temporary / f"{kept:07d}.{job.format}", torch.from_numpy(picture))
                    kept += 1
                if kept == job.limit:
                    break
    return job.folder


def square_crop(frame: UInt8[np.ndarray, "height width 3"], resolution: int) -> UInt8[np.ndarray, "side side 3"]:
    """The square in the middle of a picture, resized to ``resolution`` (area average where it shrinks)."""
    height, width, _ = frame.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(frame[top : top + side, left : left + side])
    shrinks = resolution < side
    return cv2.resize(square, (resolution, resolution), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
