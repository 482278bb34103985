"""What lies on disk as a side of an evaluation: videos, images, and heads seen from two sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.media.arrays import DAMAGE, read_archive
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import list_images, natural_order, read_image
from portraitzoo.metrics import protocols
from portraitzoo.metrics.footage import files_digest, folder_files, footage_at
from portraitzoo.metrics.multiview import NUM_VIEWS
from portraitzoo.metrics.reconstruction import parameter_file, read_parameters
from portraitzoo.metrics.reels import ClipReel
from portraitzoo.metrics.sources import Item, Listing, Need, ShortClipError, checked_subject
from portraitzoo.metrics.windows import length_at_rate, window_frames, window_starts
from portraitzoo.rendering.cameras import Camera

IMAGES_AT_ONCE = 16
"""Frames of a video that are one item where every frame is an image: decoded together, but never a whole film."""


class FootageSource:
    """Videos, or a set of images, on disk: a folder, a file, a zip or an LMDB.

    A set of images is FID's images, and one video to FVD.
    """

    threaded = True
    portable = True
    detail = ""

    def __init__(self, path: str | Path, workers: int = 2) -> None:
        self.path = Path(path)
        self.label = self.path.name or str(self.path)
        self.footage = footage_at(self.path)
        self.kind = "images" if self.footage.stills else "videos"
        self._workers = workers

    def fingerprint(self) -> str:
        """Digest of names, sizes and bytes of the files, as they were when first asked for."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.footage.digest(self._workers)

    def camera_tracks(self) -> list[Camera]:
        """Cameras of those videos that have a camera file.

        Raises:
            MediaError: if a camera file is damaged.
        """
        return self.footage.camera_tracks()

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """Windows of the videos, in order of file and time; or images, if it is images that are needed."""
        if need == "subjects":
            raise ZooError(
                f"{self.path} holds no heads seen from two sides: identity, chamfer and warping need a model, or a "
                "folder with images/VVVV_KK.png and depth/VVVV.pt"
            )
        if self.footage.stills and need == "images":
            return Listing([Item(name, 0, place) for place, name in enumerate(self.footage.names)])
        names = [self.label] if self.footage.stills else self.footage.names
        if need == "clips" and protocol.windows != "all":
            # One window each: which one is found when the video is opened, so that it is opened once.
            return Listing([Item(name, place) for place, name in enumerate(names)])
        items: list[Item] = []
        broken: dict[str, ZooError] = {}
        short: list[str] = []
        for place, (name, found) in enumerate(zip(names, self._lengths, strict=True)):
            if isinstance(found, MediaError):
                broken[name] = found
            elif need == "images":
                firsts = range(0, found[0], IMAGES_AT_ONCE)
                items += [Item(name, place, first, min(IMAGES_AT_ONCE, found[0] - first)) for first in firsts]
            else:
                starts = window_starts(length_at_rate(*found, protocol), place, protocol)
                items += [Item(name, place, start) for start in starts]
                short += [] if starts else [name]
        return Listing(items, broken, short)

    @cached_property
    def _lengths(self) -> list[tuple[int, float] | MediaError]:
        """Frames and frame rate of each video, or why it cannot be opened."""
        places = range(1 if self.footage.stills else len(self.footage.names))
        with ThreadPoolExecutor(max(self._workers, 1)) as pool:
            return list(pool.map(self._length, places))

    def _length(self, place: int) -> tuple[int, float] | MediaError:
        try:
            with self.footage.open(place) as reel:
                return reel.num_frames, reel.fps
        except MediaError as error:
            return error

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """Decode one window, or one or more images."""
        with self.footage.open(item.place) as reel:
            if need == "images":
                numbers = range(item.start, item.start + item.count)
                known = reel.maps(maps, numbers) if isinstance(reel, ClipReel) else self._numbers(item, maps)
                return Clip(frames=reel.frames(numbers), fps=reel.fps, maps=known, info={"alpha": reel.alpha})
            length = length_at_rate(reel.num_frames, reel.fps, protocol)
            starts = window_starts(length, item.place, protocol)
            if not starts:
                raise ShortClipError(f"{item.name} has {length} frames, fewer than the {protocol.span} of a clip")
            start = item.start if protocol.windows == "all" else starts[0]
            frames = reel.frames(window_frames(start, reel.fps, protocol))
            return Clip(frames=frames, fps=reel.fps, info={"alpha": reel.alpha})

    def _numbers(self, item: Item, names: Collection[str]) -> dict[str, Tensor]:
        """Keypoints and the like of the frames of an item, from the file beside its video or image."""
        place = self.footage.file(item.place, item.start)
        file = None if place is None or not names else parameter_file(place)
        if file is None or not file.is_file():
            return {}
        start = 0 if self.footage.stills else item.start
        return read_parameters(file, names, start, start + item.count)


class MultiviewFolderSource:
    """Heads from two sides in PV3D's layout: ``images/VVVV_KK.png`` with KK in 00..03, and ``depth/VVVV.pt``.

    The ``.pt`` files, or the ``.npz`` that :func:`portraitzoo.methods.bulk.multiview_many` writes, hold ``xyz``
    [4, R, R, 3], ``depth`` [4, 1, R, R] and ``weights_total`` [4, R, R, 1].
    """

    kind = "subjects"
    threaded = True
    portable = True
    detail = ""

    def __init__(self, path: str | Path, workers: int = 2) -> None:
        self.path = Path(path)
        self.label = self.path.name or str(self.path)
        self._workers = workers
        self._root = self.path / "multi" if (self.path / "multi").is_dir() else self.path
        names = {image.stem.rpartition("_")[0] for image in list_images(self._root / "images")}
        self._names = sorted(names, key=lambda name: natural_order(Path(name)))

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether a folder is laid out like this."""
        return any((root / "images").is_dir() and (root / "depth").is_dir() for root in (path, path / "multi"))

    def fingerprint(self) -> str:
        """Digest of names, sizes and bytes of the files."""
        return files_digest(
            folder_files(self._root / "images") + folder_files(self._root / "depth"), self._root, self._workers
        )

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """The heads in order of their numbers."""
        if need != "subjects":
            raise ZooError(f"{self.path} holds heads from two sides, not clips: FVD and FID need a folder of videos")
        if not self._names:
            raise ZooError(f"{self._root / 'images'} holds no VVVV_KK.png images")
        return Listing([Item(name, place) for place, name in enumerate(self._names)])

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """The four images of a head; its maps if any are asked for."""
        images = [read_image(self._root / "images" / f"{item.name}_{view:02d}.png") for view in range(NUM_VIEWS)]
        if len({image.shape for image in images}) > 1:
            raise MediaError(f"the four images of {item.name} in {self._root / 'images'} differ in size")
        rendered = self._maps(item.name) if maps else {}
        return checked_subject(Clip(frames=torch.stack(images), maps=rendered), item.name, maps, protocol)

    def _maps(self, name: str) -> dict[str, Tensor]:
        files = [self._root / "depth" / f"{name}{suffix}" for suffix in (".pt", ".npz")]
        path = next((file for file in files if file.exists()), None)
        if path is None:
            raise MediaError(f"{files[0]} is missing: chamfer and warping need the depth of every head")
        content = read_checkpoint(path) if path.suffix == ".pt" else _arrays(path)
        wanted = {"position": ("xyz", -1, 3), "depth": ("depth", 1, 1), "opacity": ("weights_total", -1, 1)}
        maps = {}
        for ours, (theirs, axis, channels) in wanted.items():
            values = content.get(theirs) if isinstance(content, Mapping) else None
            if not isinstance(values, Tensor) or values.ndim != 4 or values.shape[axis] != channels:
                raise MediaError(f"{path} holds no {theirs} as PV3D's multi-view program writes it")
            maps[ours] = values.float() if channels == 3 else values.float().squeeze(axis)
        return maps


def _arrays(path: Path) -> dict[str, Tensor]:
    try:
        return {name: torch.from_numpy(array) for name, array in read_archive(path).items()}
    except DAMAGE as error:
        raise MediaError(f"{path} is damaged: write it again") from error
