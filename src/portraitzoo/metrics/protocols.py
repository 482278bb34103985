"""Evaluation protocols: every choice that moves a number, named and kept together.

Two Fréchet distances may be compared only if all of these fields agree (and the feature network, which the report
names with its checksum). A protocol is data; a changed field makes it "modified", and every report says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from portraitzoo.errors import ZooError


@dataclass(frozen=True)
class Protocol:
    """How the two sides of an evaluation are sampled, resized, measured and compared.

    Attributes:
        name: what reports call it.
        description: one sentence for a list of protocols.
        clips: clips on each side of FVD and FID.
        subjects: generated heads, each seen twice from two sides, for identity, Chamfer and warping error.
        fewer: whether a side with fewer clips than ``clips`` is taken as it is (else it is refused).
        clip_length: frames of a clip.
        frame_stride: step between the frames of a clip, in frames of the file.
        fps: frame rate the protocol supposes; files of another rate are used as they are and counted in the report.
        windows: which part of a longer video is a clip: its ``first`` frames, one ``random`` window, or ``all``
            windows that do not overlap.
        size: both sides' frames are resized to ``size`` x ``size`` (OpenCV bilinear, the aspect is not kept) before a
            feature network sees them; None keeps them as they are.
        video_network: index entry of FVD's network. The network's own steps from 0..255 follow (resize, range).
        image_network: index entry of FID's network.
        identity_network: index entry of the face recognition network.
        manifold_network: index entry of the network whose features precision, recall, density and coverage compare.
        action_network: index entry of the video Inception Score's classifier.
        fid_frames: ``all`` frames of the clips are FID's images, or the ``first`` of each.
        cameras: along what a model's clips move: camera tracks of ``real`` clips, the model's ``own`` choice, or
            ``either`` (real ones where the real side has them).
        ddof: divisor of covariances is ``n - ddof``.
        kid_subsets: subsets over which KID is averaged, drawn with ``kid_seed``.
        kid_subset_size: images of each side in a subset; fewer where a side has fewer.
        kid_seed: seed of the subsets.
        kid_scale: KID is reported times this (3DVidGen: 1000).
        splits: parts of the set over which Inception Scores are averaged.
        neighbours: k of precision, recall, density and coverage.
        half: whether these round features and distances to float16, as StyleGAN's and Portrait4D's code does.
        eight_bit: rule by which a model's output becomes bytes (metrics of files take the bytes that are there).
        compression: what a model's clips pass through before they are measured: nothing, or H.264 as imageio writes it
            by default (PV3D's program measures its own .mp4 files).
        yaw: angle between the two views of a subject, in degrees.
        warping_size: side of the images, in pixels, at which the warping error is measured.
        first_seed: clip ``i`` of a model is drawn with seed ``first_seed + i``.
        window_seed: seed of the random windows.

    Raises:
        ZooError: if a field is out of its range.
    """

    name: str
    description: str
    clips: int
    subjects: int
    fewer: bool = False
    clip_length: int = 16
    frame_stride: int = 1
    fps: float = 25.0
    windows: Literal["first", "random", "all"] = "first"
    size: int | None = None
    video_network: str = "i3d-videogpt"
    image_network: str = "inception-2015-12-05"
    identity_network: str = "arcface-ir-se50"
    manifold_network: str = "vgg16-fc2"
    action_network: str = "c3d-ucf101"
    fid_frames: Literal["all", "first"] = "all"
    cameras: Literal["real", "own", "either"] = "either"
    ddof: Literal[0, 1] = 0
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    kid_seed: int = 0
    kid_scale: float = 1.0
    splits: int = 10
    neighbours: int = 3
    half: bool = False
    eight_bit: Literal["pv3d"] = "pv3d"
    compression: Literal["none", "h264"] = "none"
    yaw: float = 30.0
    warping_size: int = 256
    first_seed: int = 0
    window_seed: int = 0

    def __post_init__(self) -> None:
        counts = (
            "clips",
            "subjects",
            "clip_length",
            "frame_stride",
            "warping_size",
            "kid_subsets",
            "splits",
            "neighbours",
        )
        for field in counts:
            if getattr(self, field) < 1:
                raise ZooError(f"protocol {self.name}: {field} must be at least 1, not {getattr(self, field)}")
        if self.size is not None and self.size < 1:
            raise ZooError(f"protocol {self.name}: size must be at least 1, not {self.size}")
        for field, choices in get_type_hints(Protocol).items():
            if get_origin(choices) is Literal and getattr(self, field) not in get_args(choices):
                allowed = ", ".join(map(str, get_args(choices)))
                raise ZooError(f"protocol {self.name}: {field} is one of {allowed}, not {getattr(self, field)!r}")

    @property
    def span(self) -> int:
        """Consecutive frames of a file from which one clip is taken."""
        return (self.clip_length - 1) * self.frame_stride + 1

    def override(self, changes: Mapping[str, Any]) -> Protocol:
        """This protocol with some fields changed; it keeps its name and knows that it is modified.

        Raises:
            ZooError: if a field does not exist or a value is out of its range.
        """
        fields = {field.name for field in dataclasses.fields(self)} - {"name", "description"}
        for name in changes:
            if name not in fields:
                near = get_close_matches(name, fields, n=1)
                hint = f"; did you mean {near[0]}?" if near else f": it has {', '.join(sorted(fields))}"
                raise ZooError(f"a protocol has no field {name!r}{hint}")
        return dataclasses.replace(self, **changes)

    def modified(self) -> dict[str, tuple[Any, Any]]:
        """Fields that differ from the published protocol of this name: name to (published, used).

        Empty for an unmodified protocol, and for one of the user's own, whose name is not published.
        """
        published = PROTOCOLS.get(self.name)
        if published is None:
            return {}
        pairs = {f.name: (getattr(published, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="pv3d-voxceleb",
            description="PV3D's numbers on VoxCeleb: 5000 clips of 16 frames at 512, 1000 heads from two sides",
            clips=5000,
            subjects=1000,
            size=512,
            cameras="real",
            compression="h264",
            first_seed=80_000_000_000,
        ),
        Protocol(
            name="quick",
            description="a look at whatever is there: up to 64 clips of 16 frames, every window of a video, 16 heads",
            clips=64,
            subjects=16,
            fewer=True,
            windows="all",
        ),
    )
}


def get_protocol(name: str | Protocol) -> Protocol:
    """The published protocol called ``name``; a ``Protocol`` is handed back as it is.

    Raises:
        ZooError: if no protocol has that name; the nearest is suggested.
    """
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        near = get_close_matches(name, PROTOCOLS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": choose from {', '.join(PROTOCOLS)}"
        raise ZooError(f"no protocol is called {name!r}{hint}")
    return PROTOCOLS[name]
