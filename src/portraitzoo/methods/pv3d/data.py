"""PV3D's training data: clips with a camera per frame, of which every draw shows two frames.

Two layouts on disk are told apart by the file ``voxceleb.list``:

* official: ``voxceleb.list`` (one file name per line), ``recrop_faces/NAME.mp4``, ``smoothed_camera2world/NAME.json``;
* plain: ``NAME.mp4`` (or another video, or a folder of frames) with ``NAME.json`` beside it.

A camera file is a list over frames of ``[frame name, 25 floats]`` or of 25 floats (cam2world, then intrinsics).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera
from portraitzoo.training.draws import numpy_generator

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


def frame_pair(early: float, late: float, window: int = 16) -> tuple[int, int]:
    """Frames of a window shown as a pair: the sorted whole parts of ``window * early`` and ``window * late``.

    Args:
        early: draw from Beta(2, 1) in [0, 1].
        late: draw from Beta(1, 2) in [0, 1].
        window: frames of the window.
    """
    first, second = (min(int(window * draw), window - 1) for draw in (early, late))
    return min(first, second), max(first, second)


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


class ClipStream(DistributedSampler[ClipPairs]):
    """This process's part of the endless stream of training samples.

    The stream is one shuffled pass over the clips after another. Update k takes the positions ``k * batch_size`` and
    following, each process a contiguous part, so that any number of processes sees the same samples at update k.

    Args:
        dataset: the clips.
        batch_size: samples of one update, over all processes.
        length: samples of one epoch of the trainer, over all processes.
        start: tells the position to go on from when an epoch begins.
        rank: this process.
        world_size: number of processes; must divide ``batch_size``.
        seed: seed of the shuffles.
    """

    def __init__(
        self,
        dataset: ClipPairs,
        batch_size: int,
        length: int,
        start: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, seed=seed)
        self.batch_size, self.length, self.start = batch_size, length, start

    def __len__(self) -> int:
        return max(self.length // self.batch_size, 1) * self.batch_size // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        share = self.batch_size // self.num_replicas
        first = self.start() + self.rank * share
        clips = len(self.dataset)  # type: ignore[arg-type]
        for block in range(len(self) // share):
            for position in range(first + block * self.batch_size, first + block * self.batch_size + share):
                turn, place = divmod(position, clips)
                yield position, int(self._order(turn)[place])

    @lru_cache(maxsize=2)  # noqa: B019 - two passes of one sampler, which lives as long as the run
    def _order(self, turn: int) -> Int[np.ndarray, " clips"]:
        return numpy_generator(self.seed, turn).permutation(len(self.dataset))  # type: ignore[arg-type]


class StreamLoader(DataLoader[PairBatch]):
    """Loader of a :class:`ClipStream`, whose place follows from the trainer's step: it needs no state of its own."""

    def state_dict(self) -> dict[str, object]:
        """Nothing; its presence tells Lightning that stopping within an epoch is safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Nothing to load."""


class PV3DDataModule(LightningDataModule):
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
        super().__init__()
        self.val_root, self.predictions = val_root, predictions
        self.root, self.batch_size, self.num_workers = root, batch_size, num_workers
        self.image_resolution, self.mirror, self.window, self.in_memory = image_resolution, mirror, window, in_memory
        self.clips_per_epoch, self.check, self.seed = clips_per_epoch, check, seed
        self.dataset: ClipPairs | None = None
        self.held_out: ClipPairs | None = None

    def setup(self, stage: str | None = None) -> None:
        """Find, check and, if asked to, decode the clips.

        Raises:
            MediaError: naming the first clip that cannot be used.
            ZooError: if the number of devices does not divide the batch.
        """
        if self.dataset is not None or stage == "predict":
            return
        devices = self.trainer.world_size if self.trainer else 1
        if self.batch_size < 1 or self.batch_size % devices:
            raise ZooError(
                f"a batch of {self.batch_size} clips cannot be split over {devices} devices: change batch_size"
            )
        if stage in ("fit", None):
            self.dataset = self._pairs(self.root, self.mirror)
        held_out = self.val_root or (None if stage in ("fit", None) else self.root)
        if held_out is not None:
            self.held_out = self._pairs(held_out, mirror=0.0)

    def train_dataloader(self) -> StreamLoader:
        """Batches of :class:`PairBatch`, from the sample that the trainer's step says on."""
        assert self.dataset is not None and self.trainer is not None
        trainer = self.trainer
        sampler = ClipStream(
            self.dataset,
            self.batch_size,
            self.clips_per_epoch or len(self.dataset),
            start=lambda: trainer.global_step * self.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            seed=self.seed,
        )
        return StreamLoader(
            self.dataset,
            batch_size=self.batch_size // trainer.world_size,
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[PairBatch] | list[Any]:
        """One pair of every held-out clip, the same pairs every time; nothing where no clips are held out."""
        if self.held_out is None:
            return []
        devices = self.trainer.world_size if self.trainer else 1
        pairs = [self.held_out[place, place] for place in range(len(self.held_out))]
        return DataLoader(pairs, batch_size=self.batch_size // devices)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[PairBatch] | list[Any]:
        """The same as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[int]:
        """Seeds."""
        return DataLoader(range(self.predictions), batch_size=1)  # type: ignore[arg-type]

    def _pairs(self, root: str, mirror: float) -> ClipPairs:
        clips = find_clips(root)
        if self.check:
            with ThreadPoolExecutor() as pool:
                list(pool.map(check_clip, clips))
        resolution = self.image_resolution or self._network_resolution()
        return ClipPairs(clips, resolution, mirror, self.window, self.in_memory, self.seed)

    def _network_resolution(self) -> int:
        config = getattr(self.trainer.lightning_module, "config", None) if self.trainer else None
        if config is None:
            raise ZooError("image_resolution is not known before a model is: give it")
        return int(config.image_resolution)
