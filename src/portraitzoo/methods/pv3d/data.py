"""PV3D's training data: clips with a camera per frame, of which every draw shows two frames.

Two layouts on disk are told apart by the file ``voxceleb.list``:

* official: ``voxceleb.list`` (one file name per line), ``recrop_faces/NAME.mp4``, ``smoothed_camera2world/NAME.json``;
* plain: ``NAME.mp4`` (or another video, or a folder of frames) with ``NAME.json`` beside it.

A camera file is a list over frames of ``[frame name, 25 floats]`` or of 25 floats (cam2world, then intrinsics).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from portraitzoo.errors import MediaError
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera
from portraitzoo.training.draws import numpy_generator
from portraitzoo.training.frame_pairs import frame_pair
from portraitzoo.training.stream import StreamDataModule

OFFICIAL_LIST = "voxceleb.list"
GENERATING_PHASES = 3
"""Phases of an update that generate images (Gmain, Greg, Dmain); each takes cameras of its own from the data."""


class PairBatch(NamedTuple):
    """A batch of real frame pairs and the cameras for generated ones.

    Attributes:
        frames: two frames of each clip, in order of time, in [-1, 1].
        cameras: labels of the two frames.
        times: their times in [0, 1] within a window of 16 frames.
        generated_cameras: for each phase that generates, two cameras of another clip; not tied to any time.
        position: place of each sample in the endless stream of training samples.
    """

    frames: Float[Tensor, "batch 2 3 height width"]
    cameras: Float[Tensor, "batch 2 25"]
    times: Float[Tensor, "batch 2"]
    generated_cameras: Float[Tensor, "batch 3 2 25"]
    position: Int[Tensor, " batch"]


@dataclass(frozen=True)
class ClipFiles:
    """A clip on disk: its video (or folder of frames) and its cameras."""

    video: Path
    cameras: Path


def find_clips(root: str | Path) -> list[ClipFiles]:
    """Clips of a folder in either layout, in the order of the list or of their names.

    Raises:
        MediaError: if there are none, or a listed clip or a camera file is missing.
    """
    root = Path(root)
    listing = root / OFFICIAL_LIST
    if listing.is_file():
        names = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
        clips = [
            ClipFiles(root / "recrop_faces" / name, root / "smoothed_camera2world" / Path(name).with_suffix(".json"))
            for name in names
        ]
        if not clips:
            raise MediaError(f"{listing} names no clips: write one video file name per line")
    else:
        clips = [ClipFiles(video, video.with_suffix(".json")) for video in find_videos(root)]
    for clip in clips:
        if not clip.video.exists():
            raise MediaError(f"the clip {clip.video} of {listing} is missing: copy it there or remove its line")
        if not clip.cameras.is_file():
            raise MediaError(f"the cameras of {clip.video} are missing: put them at {clip.cameras}")
    return clips


def check_clip(clip: ClipFiles) -> None:
    """Open a clip without decoding it whole.

    Raises:
        MediaError: if the video is empty, cut off or damaged, the camera file is not one camera of 25 numbers per
            frame, or it is shorter than the video; the message names the file.
    """
    with VideoReader(clip.video) as reader:
        load_cameras(clip.cameras, reader.num_frames)


def window_bound(total: int, window: int = 16) -> int:
    """Exclusive upper bound of a window's first frame in a clip of ``total`` frames."""
    return max(1, total - window - 1)


def to_network(
    frames: UInt8[Tensor, "batch height width 3"], resolution: int, mirrored: bool = False
) -> Float[Tensor, "batch 3 resolution resolution"]:
    """8-bit frames as the networks see them: in [-1, 1], optionally flipped left to right, bilinearly resized.

    As published the resize has no antialiasing and is skipped where the size already fits.
    """
    image = frames.permute(0, 3, 1, 2).float() / 255
    if mirrored:
        image = image.flip(-1)
    if image.shape[-2:] != (resolution, resolution):
        image = interpolate(image, (resolution, resolution), mode="bilinear", align_corners=False)
    return (image - 0.5) / 0.5


@lru_cache(maxsize=4096)
def _camera_labels(path: Path) -> Float[Tensor, "time 25"]:
    """Labels of a camera file; kept, because every sample looks up the cameras of three more clips."""
    return load_cameras(path).label()


class ClipPairs(Dataset[PairBatch]):
    """Pairs of frames of randomly drawn windows (PV3D, section 3.3).

    Indexed by ``(position, clip)``: every draw is a function of ``seed`` and ``position``, whoever makes it.

    Args:
        clips: the clips.
        resolution: side of the frames given out, pixels.
        mirror: probability of flipping frames and cameras of a pair left to right.
        window: frames of a window; the times of its ends are 0 and 1.
        in_memory: decode every clip once, now, and keep it as 8-bit frames of ``resolution``.
        seed: seed of all draws.

    Raises:
        MediaError: for a clip that cannot be read, at once with ``in_memory``, else when it is drawn.
    """

    def __init__(
        self,
        clips: list[ClipFiles],
        resolution: int,
        mirror: float = 0.5,
        window: int = 16,
        in_memory: bool = False,
        seed: int = 0,
    ) -> None:
        self.clips, self.resolution, self.mirror, self.window, self.seed = clips, resolution, mirror, window, seed
        self._frames = [self._decode_all(clip) for clip in clips] if in_memory else None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> PairBatch:
        position, index = key
        draw = numpy_generator(self.seed, position)
        frames, start, pair = self._draw_frames(draw, index)
        mirrored = bool(draw.random() < self.mirror)
        cameras = self._cameras_at(index, start, pair)
        if mirrored:
            cameras = Camera.from_label(cameras).mirrored().label()
        return PairBatch(
            frames=to_network(frames, self.resolution, mirrored),
            cameras=cameras,
            times=torch.tensor(pair, dtype=torch.float32) / (self.window - 1),
            generated_cameras=torch.stack([self.draw_cameras(draw) for _ in range(GENERATING_PHASES)]),
            position=torch.tensor(position),
        )

    def draw_cameras(self, draw: np.random.Generator) -> Float[Tensor, "2 25"]:
        """Cameras of two frames of a randomly drawn clip, never mirrored."""
        index = int(draw.integers(len(self.clips)))
        return self._cameras_at(index, *self._draw_window(draw, len(self._labels(index))))

    def _draw_window(self, draw: np.random.Generator, total: int) -> tuple[int, tuple[int, int]]:
        start = int(draw.integers(window_bound(total, self.window)))
        return start, frame_pair(draw.beta(2, 1), draw.beta(1, 2), self.window)

    def _cameras_at(self, index: int, start: int, pair: tuple[int, int]) -> Float[Tensor, "2 25"]:
        labels = self._labels(index)
        return labels[[min(start + frame, len(labels) - 1) for frame in pair]]

    def _labels(self, index: int) -> Float[Tensor, "time 25"]:
        return _camera_labels(self.clips[index].cameras)

    def _draw_frames(
        self, draw: np.random.Generator, index: int
    ) -> tuple[UInt8[Tensor, "2 height width 3"], int, tuple[int, int]]:
        if self._frames is not None:
            frames = self._frames[index]
            start, pair = self._draw_window(draw, len(frames))
            return frames[[min(start + frame, len(frames) - 1) for frame in pair]], start, pair
        with VideoReader(self.clips[index].video) as reader:
            start, pair = self._draw_window(draw, reader.num_frames)
            first, last = (min(start + frame, reader.num_frames - 1) for frame in pair)
            return reader.read(first, last - first + 1)[[0, -1]], start, pair

    def _decode_all(self, clip: ClipFiles) -> UInt8[Tensor, "time height width 3"]:
        with VideoReader(clip.video) as reader:
            frames = reader.read()
        if tuple(frames.shape[1:3]) == (self.resolution, self.resolution):
            return frames
        image = to_network(frames, self.resolution).permute(0, 2, 3, 1)
        return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class PV3DDataModule(StreamDataModule):
    """Clips of a folder as batches of frame pairs.

    Args:
        root: folder in the official or the plain layout.
        batch_size: clips of one update, over all devices; the number of devices must divide it.
        num_workers: processes that decode, per device.
        image_resolution: side of the frames in pixels; None takes that of the network in training.
        mirror: probability of flipping a pair left to right, cameras included.
        window: frames of a window.
        in_memory: decode all clips once and keep them as 8-bit frames (for small data sets).
        clips_per_epoch: clips after which the trainer counts an epoch; None: as many as there are.
        check: open every clip before training starts, so that a bad one is reported at once.
        val_root: folder of clips that training does not see. Training validates on them after every epoch; ``zoo
            validate`` and ``zoo test`` take ``root`` where there is none.
        predictions: clips that ``zoo predict`` draws, of the seeds from 0 on.
        seed: seed of shuffling, windows, flips and cameras.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 16,
        num_workers: int = 4,
        image_resolution: int | None = None,
        mirror: float = 0.5,
        window: int = 16,
        in_memory: bool = False,
        clips_per_epoch: int | None = None,
        check: bool = True,
        val_root: str | None = None,
        predictions: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(root, batch_size, num_workers, clips_per_epoch, image_resolution, val_root, predictions, seed)
        self.mirror, self.window, self.in_memory, self.check = mirror, window, in_memory, check

    def open(self, root: str, training: bool) -> ClipPairs:
        """Pairs of the clips of a folder, each clip checked and, if asked to, decoded.

        Raises:
            MediaError: naming the first clip that cannot be used.
        """
        clips = find_clips(root)
        if self.check:
            with ThreadPoolExecutor() as pool:
                list(pool.map(check_clip, clips))
        mirror = self.mirror if training else 0.0
        return ClipPairs(clips, self.resolution(), mirror, self.window, self.in_memory, self.seed)
