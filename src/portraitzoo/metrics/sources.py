"""The two sides of an evaluation: models, folders, clips in memory.

A source lists items cheaply and loads each on its own, so that loading can run in threads, be split over processes and
go on after an interruption. Its fingerprint is of content, never of names of folders or times of change.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.media.clip import Clip
from portraitzoo.media.degrade import degrade
from portraitzoo.media.images import list_images, natural_order, read_image
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.metrics import protocols
from portraitzoo.metrics.multiview import NUM_VIEWS, side_camera
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera

Need = Literal["clips", "images", "subjects"]

IMAGEIO_QUALITY = 5.1
"""What imageio writes by default, constant rate factor 25, on the scale of ``write_video``."""


class ShortClipError(MediaError):
    """A video with fewer frames than the protocol's clip."""


@dataclass(frozen=True)
class Item:
    """One thing to load.

    Attributes:
        name: what a message calls it.
        place: number of the file, clip or seed within the source.
        start: first frame of the window.
    """

    name: str
    place: int
    start: int = 0


@dataclass(frozen=True)
class Listing:
    """The items of a source in order, and the names of those that were seen to be unusable while listing."""

    items: Sequence[Item]
    broken: Mapping[str, ZooError] = field(default_factory=dict)
    short: Sequence[str] = ()


class Source(Protocol):
    """One side of an evaluation.

    Attributes:
        label: what reports call it.
        kind: ``model``, ``videos``, ``images``, ``clips`` or ``subjects``.
        threaded: whether ``load`` may run in several threads at once.
    """

    label: str
    kind: str
    threaded: bool

    @property
    def detail(self) -> str:
        """How it is drawn from, where that is not the default."""

    def fingerprint(self) -> str:
        """Hexadecimal digest of everything that decides what ``load`` returns, apart from the protocol."""

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """Items for a need; a source without end lists ``limit`` of them.

        Raises:
            ZooError: if it cannot serve the need.
        """

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """A clip of ``protocol.clip_length`` frames, an image (a clip of one), or a subject (four frames with maps).

        Raises:
            MediaError: if it is damaged; ShortClipError if it is too short.
        """


class ModelSource:
    """Clips and multi-view subjects drawn from a generator, one seed each.

    Args:
        model: has ``sample(seed, num_frames, **options) -> Clip``; subjects need ``multiview(seed) -> Clip`` too.
        label: what reports call it.
        options: further arguments of ``sample``, the same for every clip.

    Raises:
        ZooError: if the model cannot be drawn from.
    """

    kind = "model"
    threaded = False

    def __init__(self, model: nn.Module, label: str, options: Mapping[str, object]) -> None:
        if not callable(getattr(model, "sample", None)):
            raise ZooError(f"{label} cannot be evaluated by drawing from it: a {type(model).__name__} has no sample()")
        self.label = label
        self.options = dict(options)
        self._model = model
        self._tracks: Sequence[Camera] = ()

    def follow(self, tracks: Sequence[Camera]) -> None:
        """Let each clip move along a part of one of the camera tracks (batch shape [time]); its seed chooses."""
        self._tracks = tracks

    @property
    def detail(self) -> str:
        """Options and camera tracks."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        return ", ".join(options + ([f"along {len(self._tracks)} camera tracks"] if self._tracks else []))

    def fingerprint(self) -> str:
        """Digest of the weights, the device's kind (it decides the last bits), the options and the camera tracks."""
        state = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self._model.state_dict().items()):
            state.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            state.update(_bytes(tensor))
        device = next(self._model.parameters()).device.type
        state.update(repr((device, sorted((name, repr(value)) for name, value in self.options.items()))).encode())
        for camera in self._tracks:
            state.update(_bytes(camera.label()))
        return state.hexdigest()

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """``limit`` seeds from ``protocol.first_seed`` on."""
        if need == "subjects" and not callable(getattr(self._model, "multiview", None)):
            raise ZooError(f"{self.label} cannot render one head from two sides: identity, chamfer and warping need it")
        seeds = range(protocol.first_seed, protocol.first_seed + limit)
        return Listing([Item(f"{self.label}, seed {seed}", seed) for seed in seeds])

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """Draw the clip or the subject of a seed."""
        if need == "subjects":
            with _evaluating(self._model):
                clip = self._model.multiview(item.place)  # type: ignore[operator]
            return _checked_subject(clip, item.name, maps, protocol)
        options = dict(self.options)
        if self._tracks:
            draw = np.random.default_rng(item.place)
            track = self._tracks[int(draw.integers(len(self._tracks)))]
            start = int(draw.integers(len(track) - protocol.clip_length + 1))
            options["trajectory"] = track[start : start + protocol.clip_length]
        with _evaluating(self._model):
            clip = self._model.sample(seed=item.place, num_frames=protocol.clip_length, **options)  # type: ignore[operator]
        return degrade(clip, blur=0, quality=IMAGEIO_QUALITY) if protocol.compression == "h264" else clip


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
        with ThreadPoolExecutor(self._workers) as pool:
            contents = list(pool.map(_file_digest, files))
        state = hashlib.blake2b(digest_size=16)
        for path, content in zip(files, contents, strict=True):
            name = "" if path == self.path else path.relative_to(self.path).as_posix()
            state.update(f"{name} {content}\n".encode())
        return state.hexdigest()

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
        with ThreadPoolExecutor(self._workers) as pool:
            lengths = list(pool.map(_length, self._videos))
        items: list[Item] = []
        broken: dict[str, ZooError] = {}
        short: list[str] = []
        for place, (path, length) in enumerate(zip(self._videos, lengths, strict=True)):
            if isinstance(length, MediaError):
                broken[path.name] = length
            elif length < protocol.span:
                short.append(path.name)
            else:
                items += [Item(path.name, place, start) for start in _starts(length, place, protocol)]
        return Listing(items, broken, short)

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


class ClipSource:
    """Clips in memory; those of four frames with maps can serve as multi-view subjects."""

    kind = "clips"
    threaded = True
    detail = ""

    def __init__(self, clips: Sequence[Clip], label: str = "clips in memory") -> None:
        if not clips:
            raise ZooError("the list of clips is empty: there is nothing to evaluate")
        self.label = label
        self._clips = clips

    def fingerprint(self) -> str:
        """Digest of frames, frame rates and maps."""
        state = hashlib.blake2b(digest_size=16)
        for clip in self._clips:
            state.update(f"{clip.fps} {list(clip.frames.shape)}".encode())
            state.update(_bytes(clip.frames))
            for name, values in sorted(clip.maps.items()):
                state.update(name.encode())
                state.update(_bytes(values))
        return state.hexdigest()

    def camera_tracks(self) -> list[Camera]:
        """Cameras of the clips that have them."""
        found = [clip.cameras for clip in self._clips if clip.cameras is not None]
        return [Camera(track.cam2world, track.intrinsics) for track in found]

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """Windows of the clips in order, or the clips themselves as subjects."""
        if need == "subjects":
            return Listing([Item(f"clip {place}", place) for place in range(len(self._clips))])
        items, short = [], []
        for place, clip in enumerate(self._clips):
            if len(clip.frames) < protocol.span:
                short.append(f"clip {place}")
            else:
                items += [Item(f"clip {place}", place, start) for start in _starts(len(clip.frames), place, protocol)]
        return Listing(items, short=short)

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """One window of a clip, or the whole clip as a subject."""
        clip = self._clips[item.place]
        if need == "subjects":
            return _checked_subject(clip, item.name, maps, protocol)
        window = clip.frames[item.start : item.start + protocol.span : protocol.frame_stride]
        return Clip(frames=window, fps=clip.fps)


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
        files = _files(self._root / "images") + _files(self._root / "depth")
        with ThreadPoolExecutor(self._workers) as pool:
            contents = list(pool.map(_file_digest, files))
        state = hashlib.blake2b(digest_size=16)
        for path, content in zip(files, contents, strict=True):
            state.update(f"{path.relative_to(self._root).as_posix()} {content}\n".encode())
        return state.hexdigest()

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
        return _checked_subject(Clip(frames=torch.stack(images), maps=rendered), item.name, maps, protocol)

    def _maps(self, name: str) -> dict[str, Tensor]:
        path = self._root / "depth" / f"{name}.pt"
        if not path.exists():
            path = path.with_suffix(".npz")
        if not path.exists():
            raise MediaError(f"{path} is missing: chamfer and warping need the depth of every head")
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


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while: batch norm or dropout left in training mode would quietly change every number."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _checked_subject(clip: Clip, name: str, maps: Collection[str], protocol: protocols.Protocol) -> Clip:
    if len(clip.frames) != NUM_VIEWS:
        raise MediaError(f"{name} has {len(clip.frames)} frames: a head from two sides has {NUM_VIEWS}")
    side = side_camera(protocol.yaw).cam2world
    if clip.cameras is not None and not torch.allclose(clip.cameras.cam2world[1].cpu(), side, atol=1e-4):
        raise ZooError(
            f"{name} is not seen from {protocol.yaw:g} degrees, as the protocol has it: set yaw to its angle"
        )
    missing = sorted(set(maps) - set(clip.maps))
    if missing:
        raise MediaError(f"{name} has no map {missing[0]}: chamfer and warping need it")
    return clip


def _starts(length: int, place: int, protocol: protocols.Protocol) -> Sequence[int]:
    last = length - protocol.span
    if protocol.windows == "first":
        return [0]
    if protocol.windows == "random":
        # The draw depends on the file's place alone, so that neither the count nor the workers move it.
        return [int(np.random.default_rng([protocol.window_seed, place]).integers(last + 1))]
    return range(0, last + 1, protocol.span)


def _length(path: Path) -> int | MediaError:
    try:
        with VideoReader(path) as reader:
            return reader.num_frames
    except MediaError as error:
        return error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.stat().st_size} {hashlib.file_digest(file, 'blake2b').hexdigest()}"


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _has_alpha(path: Path) -> bool:
    """Whether a PNG says in its header that it has an alpha channel (colour types 4 and 6)."""
    with path.open("rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and header[25:26] in (b"\x04", b"\x06")
