"""Prepared faces to the training sets of GenHead and Portrait4D: FFHQ's photos, VFHQ's clips."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.files import replacing
from portraitzoo.media.images import encode_image
from portraitzoo.media.portrait_lmdb import ClipRecord, clip_message, portrait_message, write_set
from portraitzoo.preprocess.prepared_folders import PreparedFace, faces_of, find_prepared
from portraitzoo.rendering.cameras import LABEL_SIZE as CAMERA_SIZE

Progress = Callable[[int, int], None]

FFHQ_PHOTOS = 70000
"""Photos of FFHQ; numbers from here on are the same ones mirrored."""
_SHAPE_END = CAMERA_SIZE + 300


@dataclass(frozen=True)
class Packed:
    """A training set that was written; as text, where it is.

    Attributes:
        path: the LMDB folder.
        count: records.
        left_out: photos or frames without motion embedding (of clips: without any of their files).
        clips_left_out: clips without a usable frame.
    """

    path: Path
    count: int
    left_out: int
    clips_left_out: int = 0

    def __str__(self) -> str:
        return str(self.path)

    def omissions(self) -> str:
        """What was left out, for people."""
        whole = f", {self.clips_left_out} clips as a whole" if self.clips_left_out else ""
        return f"{self.left_out} pictures were left out because files of theirs are missing{whole}"


def pack_ffhq(
    data: str | Path,
    out: str | Path,
    resolution: int = 512,
    limit: int | None = None,
    flips: bool = True,
    rebalance: str | Path | None = None,
    motions: bool = True,
    name: str = "FFHQ",
    progress: Progress | None = None,
) -> Packed:
    """Write prepared photos as ``out/FFHQ_<resolution>_<count>``, GenHead's training set.

    Beside it lie ``ffhq_all_shape_n_c_params.npy`` (rows of camera 25, shape 300) and ``ffhq_all_motion_params.npy``
    (expression 100, neck and jaw 6, eyes 6), from which heads are drawn when sampling. The set is whole or absent.

    Args:
        data: folder of ``00000``, ``01000`` ... ``139000`` with align_images, segs, flame_optim_params and
            motion_feats, or one such folder.
        out: folder in which the set is made.
        resolution: side of the pictures in pixels; others are resized.
        limit: stop after so many records; None for all.
        flips: False leaves out mirrored photos, whose numbers are 70000 and more.
        rebalance: JSON file that says how often each photo is repeated, by its number below 70000 (mirrored ones by
            the number of the photo); once where it says nothing.
        motions: False keeps photos without motion embedding, which GenHead has no use for; otherwise they are left
            out.
        name: of the set.
        progress: called with the numbers of finished and of all photos, after each.

    Raises:
        MediaError: if there is nothing to write, or something in it is missing, damaged, of another shape or not
            finite.
        ZooError: for impossible numbers, a place that cannot be written, or missing packages.
    """
    _check(resolution, limit)
    repeats = None if rebalance is None else _read_repeats(Path(rebalance))
    faces = [face for folder in find_prepared(data) for face in faces_of(folder)]
    if not flips:
        faces = [face for face in faces if _number(face) < FFHQ_PHOTOS]
    labels: list[Tensor] = []
    left_out = 0

    def messages() -> Iterator[bytes]:
        nonlocal left_out
        for done, face in enumerate(faces, start=1):
            if motions and not face.motion.is_file():
                left_out += 1
            else:
                photo = face.read(resolution)
                message = _photo_message(face, photo, resolution)
                for _ in range(1 if repeats is None else repeats.get(_number(face) % FFHQ_PHOTOS, 1)):
                    if len(labels) == limit:
                        return
                    labels.append(photo.labels)
                    yield message
            if progress:
                progress(done, len(faces))
        if not labels:
            raise MediaError(f"{data} has nothing to write: {left_out} photos lack a motion embedding (motion_feats)")

    path = write_set(out, name, resolution, messages())
    write_parameter_rows(out, name, torch.cat(labels))
    return Packed(path, len(labels), left_out)


def pack_vfhq(
    data: str | Path,
    out: str | Path,
    resolution: int = 512,
    limit: int | None = None,
    frames: int = 50,
    name: str | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Write prepared clips as ``out/VFHQ_sub50_<resolution>_<count>``, Portrait4D's training set of real videos.

    Beside it lie the same parameters as beside the photos (:func:`pack_ffhq`), [clips, frames, ...], of the clips with
    the most frames. The set is whole or absent.

    Args:
        data: folder of one folder for each clip, with align_images, segs, flame_optim_params and motion_feats, and
            perhaps ``select_index_<frames>.txt``, which says what frames to take (their places from 0).
        out: folder in which the set is made.
        resolution: side of the pictures in pixels; others are resized.
        limit: stop after so many clips; None for all.
        frames: of each clip that has no such file so many are taken from its beginning. Of these, frames that lack one
            of their files are left out; a clip without any frame is, too.
        name: of the set.
        progress: called with the numbers of finished and of all clips, after each.

    Raises:
        MediaError: if there is nothing to write, or something in it is damaged, of another shape or not finite.
        ZooError: for impossible numbers, a place that cannot be written, or missing packages.
    """
    _check(resolution, limit)
    if frames < 1:
        raise ZooError(f"frames must be at least 1, not {frames}")
    name = name or f"VFHQ_sub{frames}"
    folders = find_prepared(data)
    labels: list[Tensor] = []
    left_out = clips_left_out = 0

    def messages() -> Iterator[bytes]:
        nonlocal left_out, clips_left_out
        for done, folder in enumerate(folders, start=1):
            if len(labels) == limit:
                return
            chosen = _chosen(folder, frames)
            whole = [f for f in chosen if f.label.is_file() and f.motion.is_file() and f.segmentation is not None]
            left_out += len(chosen) - len(whole)
            if whole:
                clip = _joined([face.read(resolution) for face in whole], folder)
                labels.append(clip.labels)
                yield clip_message(clip, resolution, str(folder))
            else:
                clips_left_out += 1
            if progress:
                progress(done, len(folders))
        if not labels:
            raise MediaError(f"{data} has nothing to write: no frame of {len(folders)} clips has all of its files")

    path = write_set(out, name, resolution, messages())
    longest = max(map(len, labels))
    write_parameter_rows(out, name, torch.stack([clip for clip in labels if len(clip) == longest]))
    return Packed(path, len(labels), left_out, clips_left_out)


def write_parameter_rows(out: str | Path, name: str, labels: Float[Tensor, "*rows 437"]) -> tuple[Path, Path]:
    """Write the parameters of a training set beside it, as the authors publish them.

    Args:
        out: folder.
        name: of the set; its part before the first underscore, in small letters, begins the files' names.
        labels: of all photos, or [clips, frames, 437].

    Returns:
        ``*_all_shape_n_c_params.npy``, float32 [..., 325] of camera and shape, and ``*_all_motion_params.npy``,
        float32 [..., 112] of expression, neck, jaw and eyes.

    Raises:
        ZooError: if the place cannot be written.
    """
    paths = []
    for kind, rows in (("shape_n_c", labels[..., :_SHAPE_END]), ("motion", labels[..., _SHAPE_END:])):
        path = Path(out) / f"{name.partition('_')[0].lower()}_all_{kind}_params.npy"
        with replacing(path) as temporary:
            np.save(temporary, rows.numpy().astype(np.float32))
        paths.append(path)
    return paths[0], paths[1]


def _check(resolution: int, limit: int | None) -> None:
    if resolution < 16:
        raise ZooError(f"resolution must be at least 16, not {resolution}")
    if limit is not None and limit < 1:
        raise ZooError(f"limit must be at least 1, not {limit}")


def _number(face: PreparedFace) -> int:
    if not face.image.stem.isdecimal():
        raise MediaError(f"{face.image} is not called by its number in FFHQ, which flips and rebalancing go by")
    return int(face.image.stem)


def _read_repeats(path: Path) -> Mapping[int, int]:
    """How often photos are repeated, by number: a JSON object (``"00012.png": 2`` or ``"12": 2``) or a list."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MediaError(f"{path} is no JSON file: it says how often each photo is repeated") from error
    entries = dict(enumerate(content)) if isinstance(content, list) else content
    repeats = {}
    for key, count in entries.items() if isinstance(entries, dict) else ():
        number = re.fullmatch(r"(?:.*/)?(\d{1,6})(?:\.\w+)?", str(key))
        if number is None or type(count) is not int or not 0 <= count <= 1000:
            wrong = f"{key!r}: {count!r}"[:80]
            raise MediaError(f"{path} should say by number how often each photo is repeated, not {wrong}")
        repeats[int(number[1])] = count
    if not repeats:
        raise MediaError(f"{path} says nothing about photos: expected a JSON object of their numbers and counts")
    return repeats


def _photo_message(face: PreparedFace, photo: ClipRecord, resolution: int) -> bytes:
    """The message, with the files' own bytes where they have the right size."""
    segmentation = face.segmentation
    assert segmentation is not None
    return portrait_message(
        photo,
        _file(face.image, photo.images[0], resolution),
        _file(segmentation, photo.segmentations[0], resolution),
        resolution,
        str(face.image),
    )


def _file(path: Path, picture: UInt8[Tensor, "side side 3"], resolution: int) -> bytes:
    with suppress(OSError), Image.open(path) as image:
        if image.size == (resolution, resolution):
            return path.read_bytes()
    return encode_image(picture)


def _chosen(folder: Path, frames: int) -> list[PreparedFace]:
    faces = faces_of(folder)
    chosen = folder / f"select_index_{frames}.txt"
    if not chosen.is_file():
        return faces[:frames]
    words = re.split(r"[\s,]+", chosen.read_text(errors="replace").strip())
    if not all(word.isdecimal() and len(word) < 9 for word in words):
        raise MediaError(f"{chosen} should hold places of frames as whole numbers")
    places = [int(word) for word in words]
    if max(places) >= len(faces):
        raise MediaError(f"{chosen} asks for frame {max(places)}, but {folder} has {len(faces)} pictures")
    return [faces[place] for place in places]


def _joined(frames: list[ClipRecord], folder: Path) -> ClipRecord:
    if len({frame.motions.shape for frame in frames}) > 1:
        raise MediaError(f"the motion embeddings in {folder} have different lengths: prepare them again")
    parts = ("images", "segmentations", "labels", "motions")
    return ClipRecord(*(torch.cat([getattr(frame, part) for frame in frames]) for part in parts))
