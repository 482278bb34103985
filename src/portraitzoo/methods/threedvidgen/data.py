"""Training data of 3D-Aware Video Generation: windows of videos, of which every draw shows two frames.

Videos lie as folders of frames (``root/class/video/frame.png``, as published, or ``root/video/frame.png``), as video
files, or in an archive of frames (``zoo preprocess archive``), which loads fastest. Frames come in the order of their
names as text; every video is cut into windows of 16 frames that follow each other, and what is left over is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from portraitzoo.errors import MediaError
from portraitzoo.media.frame_sets import FrameVideo, find_frame_videos
from portraitzoo.training.draws import numpy_generator
from portraitzoo.training.frame_pairs import frame_pair
from portraitzoo.training.stream import StreamDataModule

Split = Literal["auto", "all", "train", "val"]

SPLIT_BY_NAME = ("faceforensics", "SKY", "kinetics")
"""Data sets whose classes are splits: those of a path with one of these words (and without "taichi") in it."""


class PairBatch(NamedTuple):
    """A batch of real frame pairs.

    Attributes:
        frames: two frames of each window, in order of time, in [-1, 1].
        times: their times in [0, 1] within the window.
        position: place of each sample in the endless stream of training samples.
    """

    frames: Float[Tensor, "batch 2 3 height width"]
    times: Float[Tensor, "batch 2"]
    position: Int[Tensor, " batch"]


@dataclass(frozen=True)
class Window:
    """Consecutive frames of a video.

    Attributes:
        video: the video.
        start: first frame.
    """

    video: FrameVideo
    start: int


def crop_and_resize(
    frames: UInt8[Tensor, "batch height width 3"], resolution: int
) -> Float[Tensor, "batch 3 {resolution} {resolution}"]:
    """The square in the middle, bilinearly resized without antialiasing; values stay in [0, 255], not rounded."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frames[:, top : top + side, left : left + side].permute(0, 3, 1, 2).float()
    if side == resolution:
        return square.contiguous()
    return interpolate(square, (resolution, resolution), mode="bilinear", align_corners=False)


def to_network(
    frames: UInt8[Tensor, "batch height width 3"], resolution: int
) -> Float[Tensor, "batch 3 {resolution} {resolution}"]:
    """8-bit frames as the networks see them: :func:`crop_and_resize`, then to [-1, 1]."""
    return crop_and_resize(frames, resolution) / 127.5 - 1


def split_of(videos: Sequence[FrameVideo], split: Split, root: str | Path, training: bool) -> list[FrameVideo]:
    """Videos of a split.

    Args:
        videos: of all classes.
        split: ``all``; ``train`` leaves out classes with "val" in their name, ``val`` those with "train". ``auto``, as
            published, is ``train`` or ``val`` for the data sets of :data:`SPLIT_BY_NAME` and ``all`` for others.
        root: path of the data set, for ``auto``.
        training: whether they are to be trained on, for ``auto``.

    Raises:
        MediaError: if nothing is left.
    """
    if split == "auto":
        by_name = any(word in str(root) for word in SPLIT_BY_NAME) and "taichi" not in str(root)
        split = ("train" if training else "val") if by_name else "all"
    unwanted = {"train": "val", "val": "train"}.get(split)
    chosen = [video for video in videos if unwanted is None or unwanted not in video.group]
    if not chosen:
        raise MediaError(f"all classes of {root} have {unwanted!r} in their name: choose split all")
    return chosen


def check_video(video: FrameVideo, window: int) -> None:
    """Look at every frame's header.

    Raises:
        MediaError: if the video has one frame or less than a window, a frame cannot be read, or frames differ in size.
    """
    check_length(video, window)
    sizes = video.sizes()
    other = next((index for index, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        raise MediaError(
            f"frames of {video.name} differ in size: frame {other} is {'x'.join(map(str, sizes[other]))}, the first "
            f"{'x'.join(map(str, sizes[0]))}; `zoo preprocess frames` writes them in one size"
        )


def check_length(video: FrameVideo, window: int) -> None:
    """Require at least one window.

    Raises:
        MediaError: if the video is shorter.
    """
    if video.num_frames == 1:
        raise MediaError(f"{video.name} has only one frame: a video needs at least two; remove it or set skip_short")
    if video.num_frames < window:
        raise MediaError(
            f"{video.name} has {video.num_frames} frames, fewer than a window of {window}: remove it, set skip_short "
            "or make the window shorter"
        )


class FramePairs(Dataset[PairBatch]):
    """Pairs of frames of windows (Bahmani et al., section 3.3; DIGAN's sampling).

    Indexed by ``(position, window)``: every draw is a function of ``seed`` and ``position``, whoever makes it.

    Args:
        videos: the videos, each at least one window long.
        resolution: side of the frames given out, pixels.
        mirror: probability of flipping a pair left to right; as published 0.
        window: frames of a window; the times of its ends are 0 and 1.
        in_memory: read all frames once, now, and keep them as 8-bit frames of ``resolution``.
        seed: seed of all draws.

    Raises:
        MediaError: for a video that cannot be read.
    """

    def __init__(
        self,
        videos: Sequence[FrameVideo],
        resolution: int,
        mirror: float = 0.0,
        window: int = 16,
        in_memory: bool = False,
        seed: int = 0,
    ) -> None:
        self.resolution, self.mirror, self.window, self.seed = resolution, mirror, window, seed
        self.windows = [
            Window(video, start) for video in videos for start in range(0, video.num_frames - window + 1, window)
        ]
        self._kept = [self._read_all(window) for window in self.windows] if in_memory else None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> PairBatch:
        position, index = key
        draw = numpy_generator(self.seed, position)
        pair = frame_pair(draw.beta(2, 1), draw.beta(1, 2), self.window)
        if self._kept is None:
            window = self.windows[index]
            frames = self._stacked([window.video.read(window.start + frame) for frame in pair], window)
        else:
            frames = self._kept[index][list(pair)]
        image = to_network(frames, self.resolution)
        return PairBatch(
            frames=image.flip(-1) if draw.random() < self.mirror else image,
            times=torch.tensor(pair, dtype=torch.float32) / (self.window - 1),
            position=torch.tensor(position),
        )

    def _stacked(self, frames: list[UInt8[Tensor, "height width 3"]], window: Window) -> UInt8[Tensor, "time h w 3"]:
        if len({frame.shape for frame in frames}) > 1:
            raise MediaError(
                f"frames of {window.video.name} differ in size: `zoo preprocess frames` writes them in one size"
            )
        return torch.stack(frames)

    def _read_all(self, window: Window) -> UInt8[Tensor, "time resolution resolution 3"]:
        frames = [window.video.read(window.start + frame) for frame in range(self.window)]
        small = crop_and_resize(self._stacked(frames, window), self.resolution)
        return small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class ThreeDVidGenDataModule(StreamDataModule):
    """Windows of the videos of a folder or an archive as batches of frame pairs.

    Args:
        root: ``class/video/frame.png``, ``video/frame.png``, video files, or a .zip archive of frames.
        batch_size: windows of one update, over all devices; the number of devices must divide it.
        num_workers: processes that decode, per device.
        image_resolution: side of the frames in pixels; None takes that of the network in training.
        mirror: probability of flipping a pair left to right.
        window: frames of a window.
        split: classes that are trained on, see :func:`split_of`; of held-out data ``train`` takes those of ``val``.
        skip_short: leave out videos that are shorter than a window, as published, instead of refusing them.
        in_memory: read all frames once and keep them as 8-bit frames (for small data sets).
        windows_per_epoch: windows after which the trainer counts an epoch; None: as many as there are.
        check: look at every frame's header before training starts, so that a bad one is reported at once.
        val_root: data that training does not see. Training validates on them after every epoch; ``zoo validate`` and
            ``zoo test`` take ``root`` where there is none.
        predictions: clips that ``zoo predict`` draws, of the seeds from 0 on.
        seed: seed of shuffling, frames and flips.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 32,
        num_workers: int = 3,
        image_resolution: int | None = None,
        mirror: float = 0.0,
        window: int = 16,
        split: Split = "auto",
        skip_short: bool = False,
        in_memory: bool = False,
        windows_per_epoch: int | None = None,
        check: bool = True,
        val_root: str | None = None,
        predictions: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(
            root, batch_size, num_workers, windows_per_epoch, image_resolution, val_root, predictions, seed
        )
        self.mirror, self.window, self.in_memory, self.check = mirror, window, in_memory, check
        self.split: Split = split
        self.skip_short = skip_short

    def open(self, root: str, training: bool) -> FramePairs:
        """Pairs of the windows of a data set.

        Raises:
            MediaError: naming the first video that cannot be used.
        """
        if self.window < 2:
            raise MediaError(f"a window of {self.window} frames has no pairs: window is at least 2")
        split: Split = "val" if self.split == "train" and not training else self.split
        videos = split_of(find_frame_videos(root), split, root, training)
        if self.skip_short:
            videos = [video for video in videos if video.num_frames >= self.window]
            if not videos:
                raise MediaError(f"all videos of {root} are shorter than a window of {self.window} frames")
        check = check_video if self.check else check_length
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda video: check(video, self.window), videos))
        mirror = self.mirror if training else 0.0
        return FramePairs(videos, self.resolution(), mirror, self.window, self.in_memory, self.seed)
