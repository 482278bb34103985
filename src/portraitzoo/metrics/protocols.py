"""Evaluation protocols: every choice that moves a number, named and kept together.

Two Fréchet distances may be compared only if all of these fields agree (and the feature network, which the report
names with its checksum). Published protocols are data, ``zoo/protocols.yaml``; a changed field makes one "modified",
and every report says so.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from portraitzoo.errors import ZooError
from portraitzoo.files import shipped

FILE = "protocols.yaml"
DESCRIBING = frozenset({"name", "description", "metrics", "remarks"})
"""Fields that move no number."""


@dataclass(frozen=True)
class Protocol:
    """How the two sides of an evaluation are sampled, resized, measured and compared.

    Attributes:
        name: what reports call it.
        description: one sentence for a list of protocols.
        metrics: what is measured unless other metrics are asked for.
        remarks: what the protocol says beyond these fields, and what its authors do not say.
        clips: clips on each side of FVD and FID, or pairs; all that there are if not given.
        real_clips: clips on the real side, where they are not as many.
        images: generated images, where ``fid_frames`` is ``single``; all that there are if not given.
        real_images: real images in that case; all that there are if not given.
        subjects: generated heads, each seen twice from two sides, for identity, Chamfer and warping error.
        fewer: whether a side with fewer items than asked for is taken as it is (else it is refused).
        fewer_real: whether that holds for the real side alone.
        clip_length: frames of a clip.
        frame_stride: step between the frames of a clip, in frames of the file.
        fps: frame rate that the protocol supposes; files of another rate are used as they are and counted in the
            report. Not given: any rate.
        resample_fps: whether files of another rate are brought to ``fps``, each frame the nearest in time.
        windows: which part of a longer video is a clip: its ``first`` frames, one ``random`` window, or ``all``
            windows that do not overlap.
        generated_windows: the same for the generated side, where it differs.
        crop: which part of a frame is looked at: all of it (``none``), or the largest ``centre`` square.
        size: frames are resized to ``size`` x ``size`` before a feature network sees them; they are kept as they are
            if it is not given.
        resize: by which rule: ``opencv`` bilinear on bytes, ``torch`` bilinear (half-pixel centres, no antialias),
            Pillow's ``lanczos``, or ``nearest`` pixels.
        resized: whether resized frames are rounded to ``bytes`` or stay ``floats`` 0..255 (torch's rule only).
        video_network: index entry of FVD's network. The network's own steps from 0..255 follow (resize, range).
        image_network: index entry of FID's network.
        inception_path: how images reach Inception's 299 pixels: ``tensorflow`` (StyleGAN, torch-fidelity),
            ``pytorch-fid`` or ``clean`` (clean-fid).
        identity_network: index entry of the face recognition network.
        face_detector: index entry of the network that finds faces for keypoint, pose and expression distances.
        face_landmarks: index entry of the network whose landmarks are their keypoints.
        face_coefficients: index entry of the network that gives their pose and expression.
        manifold_network: index entry of the network whose features precision, recall, density and coverage compare.
        action_network: index entry of the video Inception Score's classifier.
        fid_frames: what FID's images are: ``all`` frames of the clips, the ``first`` of each, or ``single`` ones: a
            model draws them one by one, a folder of videos gives every frame of every video.
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
        eight_bit: rule by which a model's output becomes bytes: the ``model`` 's own, or one of the systems' (see
            :func:`portraitzoo.media.images.to_uint8`). Files have the bytes that they have.
        compression: what a model's clips pass through before they are measured: nothing, ``h264`` as imageio writes it
            by default (PV3D's program measures its own .mp4 files), or ``jpeg`` of quality 75 with 4:2:0 chroma.
        real_compression: what real frames pass through after they were resized.
        masked: whether pixels outside a pair's mask are made black on both sides before L1, SSIM and LPIPS (NPVA).
        paths: steps of the perceptual path length.
        path_epsilon: length of a step, as a share of the way between two people.
        yaw: angle between the two views of a subject, in degrees.
        warping_size: side of the images, in pixels, at which the warping error is measured.
        first_seed: clip ``i`` of a model is drawn with seed ``first_seed + i``.
        window_seed: seed of the random windows.
        sampling: by family, the arguments with which a model's ``sample`` is called, where they are not the default.

    Raises:
        ZooError: if a field is out of its range.
    """

    name: str
    description: str = ""
    metrics: tuple[str, ...] = ("fvd",)
    remarks: tuple[str, ...] = ()
    clips: int | None = 64
    real_clips: int | None = None
    images: int | None = None
    real_images: int | None = None
    subjects: int = 16
    fewer: bool = False
    fewer_real: bool = False
    clip_length: int = 16
    frame_stride: int = 1
    fps: float | None = 25.0
    resample_fps: bool = False
    windows: Literal["first", "random", "all"] = "first"
    generated_windows: Literal["first", "random", "all"] | None = None
    crop: Literal["none", "centre"] = "none"
    size: int | None = None
    resize: Literal["opencv", "torch", "lanczos", "nearest"] = "opencv"
    resized: Literal["bytes", "floats"] = "bytes"
    video_network: str = "i3d-videogpt"
    image_network: str = "inception-2015-12-05"
    inception_path: Literal["tensorflow", "pytorch-fid", "clean"] = "tensorflow"
    identity_network: str = "arcface-ir-se50"
    face_detector: str = "retinaface-resnet50"
    face_landmarks: str = "fan3d-heatmap"
    face_coefficients: str = "deep3d-resnet50"
    manifold_network: str = "vgg16-fc2"
    action_network: str = "c3d-ucf101"
    fid_frames: Literal["all", "first", "single"] = "all"
    cameras: Literal["real", "own", "either"] = "either"
    ddof: Literal[0, 1] = 0
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    kid_seed: int = 0
    kid_scale: float = 1.0
    splits: int = 10
    neighbours: int = 3
    half: bool = False
    eight_bit: Literal["model", "pv3d", "stylegan", "threedvidgen", "round"] = "model"
    compression: Literal["none", "h264", "jpeg"] = "none"
    real_compression: Literal["none", "jpeg"] = "none"
    masked: bool = False
    paths: int = 50_000
    path_epsilon: float = 1e-4
    yaw: float = 30.0
    warping_size: int = 256
    first_seed: int = 0
    window_seed: int = 0
    sampling: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        hints = get_type_hints(Protocol)
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if field.name == "sampling":
                if not isinstance(value, Mapping) or not all(isinstance(each, Mapping) for each in value.values()):
                    raise ZooError(f"protocol {self.name}: sampling names families and their arguments, not {value!r}")
                continue
            if not _fits(value, hint):
                raise ZooError(f"protocol {self.name}: {field.name} is {_shown(hint)}, not {value!r}")
            if field.name in _COUNTS and value is not None and value < 1:
                raise ZooError(f"protocol {self.name}: {field.name} must be at least 1, not {value}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ZooError(f"protocol {self.name}: fps must be above 0 and at most 1000, not {self.fps}")
        if self.resample_fps and self.fps is None:
            raise ZooError(f"protocol {self.name} supposes no frame rate to resample to: set fps too")
        if self.resized == "floats" and self.resize != "torch":
            raise ZooError(f"protocol {self.name}: resized frames stay floats with resize=torch only")

    @property
    def span(self) -> int:
        """Consecutive frames of a file from which one clip is taken."""
        return (self.clip_length - 1) * self.frame_stride + 1

    def of_side(self, side: Literal["generated", "real"]) -> Protocol:
        """The protocol as one side has to follow it: that side's counts, windows and compression stand first."""
        if side == "generated":
            return dataclasses.replace(self, windows=self.generated_windows or self.windows)
        return dataclasses.replace(
            self,
            clips=self.real_clips or self.clips,
            images=self.real_images,
            fewer=self.fewer or self.fewer_real,
            compression=self.real_compression,
        )

    def override(self, changes: Mapping[str, Any]) -> Protocol:
        """This protocol with some fields changed; it keeps its name and knows that it is modified.

        Raises:
            ZooError: if a field does not exist or a value is out of its range.
        """
        fields = {field.name for field in dataclasses.fields(self)} - DESCRIBING
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
        published = published_protocols().get(self.name)
        if published is None:
            return {}
        pairs = {f.name: (getattr(published, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


_COUNTS = frozenset(
    (
        *("clips", "real_clips", "images", "real_images", "subjects", "clip_length", "frame_stride", "size"),
        *("kid_subsets", "kid_subset_size", "splits", "neighbours", "warping_size", "paths"),
    )
)


def published_protocols() -> dict[str, Protocol]:
    """All protocols that have a name, in the order of ``protocols.yaml``.

    A folder named by ``PORTRAITZOO_INDEX`` may hold a further ``protocols.yaml``; its protocols replace those of the
    same name.

    Raises:
        ZooError: if a file is not as described there; the message names file, protocol and field.
    """
    further = os.environ.get("PORTRAITZOO_INDEX", "").split(os.pathsep)
    files = [folder / FILE for folder in (shipped("zoo"), *(Path(name) for name in further if name))]
    found: dict[str, Protocol] = {}
    for file in files:
        if file.is_file():
            found |= _read(file, file.stat().st_mtime_ns)
    return found


def get_protocol(name: str | Protocol) -> Protocol:
    """The published protocol called ``name``; a ``Protocol`` is handed back as it is.

    Raises:
        ZooError: if no protocol has that name; the nearest is suggested.
    """
    if isinstance(name, Protocol):
        return name
    published = published_protocols()
    if name not in published:
        near = get_close_matches(name, published, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": choose from {', '.join(published)}"
        raise ZooError(f"no protocol is called {name!r}{hint}")
    return published[name]


@lru_cache(maxsize=8)
def _read(file: Path, modified: int) -> dict[str, Protocol]:
    """Protocols of one file; ``modified`` only makes the cache notice that the file has changed."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ZooError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    listed = content.get("protocols") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(fields, dict) for fields in listed.values()):
        raise ZooError(f"{file}: 'protocols' is no mapping of names to fields")
    known = {field.name for field in dataclasses.fields(Protocol)}
    protocols = {}
    for name, fields in listed.items():
        unknown = [field for field in fields if field not in known]
        if unknown:
            raise ZooError(f"{file}: {name} has the unknown field {unknown[0]!r}")
        plain: dict[str, Any] = {f: tuple(value) if isinstance(value, list) else value for f, value in fields.items()}
        protocols[name] = Protocol(name=name, **plain)
    return protocols


def _fits(value: object, hint: Any) -> bool:
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in members)
    if origin is Literal:
        return value in members and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _shown(hint: Any) -> str:
    """A type as a person would say it."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_shown(member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "nothing"}
    return names.get(hint, "a list of texts")
