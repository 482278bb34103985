"""The two sides of an evaluation: models, folders, clips in memory.

A source lists items cheaply and loads each on its own, so that loading can run in threads, be split over processes and
go on after an interruption. Its fingerprint is of content, never of names of folders or times of change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.hub.loading import family_of
from portraitzoo.media.clip import Clip
from portraitzoo.media.degrade import degrade, jpeg_coded
from portraitzoo.media.images import measured_output
from portraitzoo.methods.run_record import weights_checksum
from portraitzoo.metrics import protocols
from portraitzoo.metrics.multiview import NUM_VIEWS, yaw_between
from portraitzoo.metrics.windows import length_at_rate, window_frames, window_starts
from portraitzoo.rendering.camera_files import draw_cameras
from portraitzoo.rendering.cameras import Camera

Need = Literal["clips", "images", "subjects", "pairs", "paths-w", "paths-z"]

SAME_ANGLE = 0.01
"""Degrees by which a view may miss the protocol's angle."""

IMAGEIO_QUALITY = 5.0
"""What imageio writes by default (constant rate factor 25), and so PV3D's evaluation clips."""


class ShortClipError(MediaError):
    """A video with fewer frames than the protocol's clip."""


@dataclass(frozen=True)
class Item:
    """One thing to load.

    Attributes:
        name: what a message calls it.
        place: number of the file, clip or seed within the source.
        start: first frame of the window.
        count: images in it, where every frame is an image.
    """

    name: str
    place: int
    start: int = 0
    count: int = 1


@dataclass(frozen=True)
class Listing:
    """The items of a source in order, and the names of those that were seen to be unusable while listing.

    ``notes`` say what else was odd, counted and named.
    """

    items: Sequence[Item]
    broken: Mapping[str, ZooError] = field(default_factory=dict)
    short: Sequence[str] = ()
    notes: Sequence[str] = ()


class Source(Protocol):
    """One side of an evaluation.

    Attributes:
        label: what reports call it.
        kind: ``model``, ``videos``, ``images``, ``clips`` or ``subjects``.
        threaded: whether ``load`` may run in several threads at once.
        portable: whether it may be sent to other processes, to ``load`` there.
    """

    label: str
    kind: str
    threaded: bool
    portable: bool

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
    portable = False

    def __init__(self, model: nn.Module, label: str, options: Mapping[str, object]) -> None:
        if not callable(getattr(model, "sample", None)):
            raise ZooError(f"{label} cannot be evaluated by drawing from it: a {type(model).__name__} has no sample()")
        self.label = label
        self.options = dict(options)
        self.model = model
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
        state.update(weights_checksum(self.model).encode())
        device = next(self.model.parameters()).device.type
        state.update(repr((device, sorted((name, repr(value)) for name, value in self.options.items()))).encode())
        for camera in self._tracks:
            state.update(_bytes(camera.label()))
        return state.hexdigest()

    def listing(self, need: Need, protocol: protocols.Protocol, limit: int) -> Listing:
        """``limit`` seeds from ``protocol.first_seed`` on."""
        if need == "subjects" and not callable(getattr(self.model, "multiview", None)):
            raise ZooError(f"{self.label} cannot render one head from two sides: identity, chamfer and warping need it")
        seeds = range(protocol.first_seed, protocol.first_seed + limit)
        return Listing([Item(f"{self.label}, seed {seed}", seed) for seed in seeds])

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """Draw the clip, the image (a clip of one frame) or the subject of a seed.

        Raises:
            MediaError: if the picture holds NaN or infinity.
        """
        with evaluating(self.model), measured_output(protocol.eight_bit), _named(item):
            if need == "subjects":
                clip = self.model.multiview(item.place)  # type: ignore[operator]
                return checked_subject(clip, item.name, maps, protocol)
            count = protocol.span if need == "clips" else 1
            options = self._by_protocol(protocol)
            if self._tracks:
                options["trajectory"] = draw_cameras(self._tracks, count, item.place)
            options |= self.options
            clip = self.model.sample(seed=item.place, num_frames=count, **options)  # type: ignore[operator]
        if protocol.compression == "h264":
            clip = degrade(clip, blur=0, quality=IMAGEIO_QUALITY)
        elif protocol.compression == "jpeg":
            clip = jpeg_coded(clip)
        return clip[:: protocol.frame_stride]

    def _by_protocol(self, protocol: protocols.Protocol) -> dict[str, object]:
        """What the protocol asks of models of this family."""
        return dict(protocol.sampling.get(family_of(self.model) or "", {}))


class ClipSource:
    """Clips in memory; those of four frames with maps can serve as multi-view subjects."""

    kind = "clips"
    threaded = True
    portable = False
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
        """Windows of the clips in order; or the clips themselves, as subjects or as sets of images."""
        if need == "subjects":
            return Listing([Item(f"clip {place}", place) for place in range(len(self._clips))])
        items: list[Item] = []
        short: list[str] = []
        for place, clip in enumerate(self._clips):
            if need == "images":
                items.append(Item(f"clip {place}", place, 0, len(clip)))
                continue
            starts = window_starts(length_at_rate(len(clip), clip.fps, protocol), place, protocol)
            items += [Item(f"clip {place}", place, start) for start in starts]
            short += [] if starts else [f"clip {place}"]
        return Listing(items, short=short)

    def load(self, item: Item, need: Need, protocol: protocols.Protocol, maps: Collection[str]) -> Clip:
        """One window of a clip, or the whole clip as a subject or as images."""
        clip = self._clips[item.place]
        if need == "subjects":
            return checked_subject(clip, item.name, maps, protocol)
        if need == "images":
            cut = slice(item.start, item.start + item.count)
            return Clip(
                frames=clip.frames[cut], maps={name: clip.maps[name][cut] for name in maps if name in clip.maps}
            )
        return Clip(frames=clip.frames[window_frames(item.start, clip.fps, protocol)], fps=clip.fps)


@contextmanager
def _named(item: Item) -> Iterator[None]:
    """Put the item's name before what is wrong with its picture."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{item.name}: {error}") from error


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while: batch norm or dropout left in training mode would quietly change every number."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def checked_subject(clip: Clip, name: str, maps: Collection[str], protocol: protocols.Protocol) -> Clip:
    """The clip, if it is a head from two sides with these maps; else MediaError says what it lacks."""
    if len(clip.frames) != NUM_VIEWS:
        raise MediaError(f"{name} has {len(clip.frames)} frames: a head from two sides has {NUM_VIEWS}")
    if clip.cameras is not None and abs(yaw_between(*clip.cameras.cam2world[:2].cpu()) - protocol.yaw) > SAME_ANGLE:
        raise ZooError(
            f"{name} is not seen from {protocol.yaw:g} degrees, as the protocol has it: set yaw to its angle"
        )
    missing = sorted(set(maps) - set(clip.maps))
    if missing:
        raise MediaError(f"{name} has no map {missing[0]}: chamfer and warping need it")
    return clip


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
