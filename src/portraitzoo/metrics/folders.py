"""Folders as sides of an evaluation: videos, frame folders, images, and heads seen from two sides."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import list_images, natural_order, read_image
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.metrics import protocols
from portraitzoo.metrics.multiview import NUM_VIEWS
from portraitzoo.metrics.sources import Item, Listing, Need, ShortClipError, checked_subject, window_starts
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera


class FolderSource:
    """Videos (files or frame folders) of a folder, one video file, or a folder of single images.

    A folder that holds images directly is a set of images to FID and one video to FVD. VoxCeleb as PV3D lays it out
    (``recrop_faces``, ``smoothed_camera2world``) is known too.
    """

    threaded = True
    detail = ""

    def __init__(self, path: str | Path, workers: int = 2) -> None:
        self.path = Path(path)
        self.label = self.path.name or str(self.path)
        self._workers = workers
        recropped = self.path / "recrop_faces"
        self._videos = find_videos(recropped if recropped.is_dir() else self.path)
        self._images = list_images(self.path) if self._videos == [self.path] and self.path.is_dir() else []
        self.kind = "images" if self._images else "videos"

    def fingerprint(self) -> str:
        """Digest of names, sizes and bytes of the files."""
        files = [path for video in self._videos for path in ([video] if video.is_file() else _files(video))]
        return _digest(files, self.path, self._workers)

    def camera_tracks(self) -> list[Camera]:
        """Cameras of those videos that have a camera file: ``NAME.json`` beside, or in ``smoothed_camera2world``.

        Raises:
            MediaError: if a camera file is damaged.
        """
        tracks = []
        for video in self._videos:
            homes = (video.parent, video.parent.parent / "smoothed_camera2world")
            files = [home / f"{video.stem}.json" for home in homes]
            tracks += [load_cameras(file) for file in files if file.is_file()][:1]
        return tracks

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """Windows of the videos, in order of file and time; or the images, if it is images that are needed."""
        if need == "subjects":
            raise ZooError(
                f"{self.path} holds no heads seen from two sides: identity, chamfer and warping need a model, or a "
                "folder with images/VVVV_KK.png and depth/VVVV.pt"
            )
        if need == "images" and self._images:
            return Listing([Item(path.name, place) for place, path in enumerate(self._images)])
        if protocol.windows == "first":
            return Listing([Item(path.name, place) for place, path in enumerate(self._videos)])
        items: list[Item] = []
        broken: dict[str, ZooError] = {}
        short: list[str] = []
        for place, (path, length) in enumerate(zip(self._videos, self._lengths, strict=True)):
            if isinstance(length, MediaError):
                broken[path.name] = length
            elif length < protocol.span:
                short.append(path.name)
            else:
                items += [Item(path.name, place, start) for start in window_starts(length, place, protocol)]
        return Listing(items, broken, short)

    @cached_property
    def _lengths(self) -> list[int | MediaError]:
        """Frames of each video, or why it cannot be opened."""
        with ThreadPoolExecutor(self._workers) as pool:
            return list(pool.map(_length, self._videos))

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """Decode one window, or one image."""
        if need == "images" and self._images:
            path = self._images[item.place]
            return Clip(frames=read_image(path)[None], info={"alpha": _has_alpha(path)})
        video = self._videos[item.place]
        with VideoReader(video) as reader:
            if reader.num_frames < item.start + protocol.span:
                raise ShortClipError(
                    f"{video} has {reader.num_frames} frames, fewer than the {protocol.span} of a clip"
                )
            frames = reader.read(item.start, protocol.span)[:: protocol.frame_stride]
            alpha = video.is_dir() and _has_alpha(list_images(video)[0])
            return Clip(frames=frames, fps=reader.fps, info={"alpha": alpha})


class MultiviewFolderSource:
    """Heads from two sides in PV3D's layout: ``images/VVVV_KK.png`` with KK in 00..03, and ``depth/VVVV.pt``.

    The ``.pt`` files, or the ``.npz`` that :func:`portraitzoo.methods.bulk.multiview_many` writes, hold ``xyz``
    [4, R, R, 3], ``depth`` [4, 1, R, R] and ``weights_total`` [4, R, R, 1].
    """

    kind = "subjects"
    threaded = True
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
        return _digest(_files(self._root / "images") + _files(self._root / "depth"), self._root, self._workers)

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
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise MediaError(f"{path} is damaged: write it again") from error


def _length(path: Path) -> int | MediaError:
    try:
        with VideoReader(path) as reader:
            return reader.num_frames
    except MediaError as error:
        return error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _digest(files: Sequence[Path], root: Path, workers: int) -> str:
    """Digest of names relative to ``root``, sizes and bytes; a file that is the root itself has no name."""
    with ThreadPoolExecutor(workers) as pool:
        contents = list(pool.map(_file_digest, files))
    state = hashlib.blake2b(digest_size=16)
    for path, content in zip(files, contents, strict=True):
        state.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return state.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.stat().st_size} {hashlib.file_digest(file, 'blake2b').hexdigest()}"


def _has_alpha(path: Path) -> bool:
    """Whether a PNG says in its header that it has an alpha channel (colour types 4 and 6)."""
    with path.open("rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and header[25:26] in (b"\x04", b"\x06")
