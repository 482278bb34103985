"""GenHead's and Portrait4D's training sets: LMDB folders ``NAME_<resolution>_<count>`` of photos or of clips.

Each picture comes with a mask of the foreground, a label of 437 numbers (camera in OpenGL's axes 25, FLAME shape 300,
expression 100, neck and jaw 6, eyes 6) and, where it was computed, a motion embedding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.files import replacing
from portraitzoo.media.images import encode_image
from portraitzoo.media.portrait_records import Datum
from portraitzoo.media.records import RecordFile, write_records

LABEL = 437
_NAME = re.compile(r"(.+)_(\d{1,5})_(\d{1,8})")


@dataclass(frozen=True)
class PortraitRecord:
    """One photo.

    Attributes:
        image: RGB.
        segmentation: white where the person is.
        label: camera and FLAME parameters, see the module.
        motion: motion embedding (548 numbers of PD-FGC's); None if there is none.
    """

    image: UInt8[Tensor, "height width 3"]
    segmentation: UInt8[Tensor, "height width 3"]
    label: Float[Tensor, " 437"]
    motion: Float[Tensor, " motions"] | None


@dataclass(frozen=True)
class ClipRecord:
    """The frames of one clip, see :class:`PortraitRecord`.

    Attributes:
        images: RGB.
        segmentations: white where the person is.
        labels: a row for each frame.
        motions: a row for each frame; rows of no numbers if there are no embeddings.
    """

    images: UInt8[Tensor, "time height width 3"]
    segmentations: UInt8[Tensor, "time height width 3"]
    labels: Float[Tensor, "time 437"]
    motions: Float[Tensor, "time motions"]


class _PortraitFolder:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        name = _NAME.fullmatch(self.path.name)
        if not self.path.is_dir():
            raise MediaError(f"there is no LMDB folder {self.path}")
        if name is None:
            raise MediaError(f"{self.path} is not called NAME_<resolution>_<count>, as FFHQ_512_216414: rename it")
        self.resolution, self._count = int(name[2]), int(name[3])
        self._records = RecordFile(self.path)
        if len(self._records) != self._count:
            raise MediaError(f"{self.path} holds {len(self._records)} records: let its name end so, or copy it again")

    def __len__(self) -> int:
        """Number of records."""
        return self._count

    def _labels(self, index: int) -> Float[Tensor, "num 437"]:
        return self._records.read(self._number(index), lambda datum: self._rows(datum, "labels", index))

    def _read(self, index: int, frames: Sequence[int] | None = None) -> ClipRecord:
        return self._records.read(self._number(index), lambda datum: self._record(datum, index, frames))

    def _record(self, datum: Datum, index: int, frames: Sequence[int] | None) -> ClipRecord:
        name, side = self._records.name(index), self.resolution
        if (datum.height, datum.width) != (side, side):
            found = f"{datum.width}x{datum.height}"
            raise MediaError(f"{name} holds pictures of {found}, not {side}x{side} as its folder says")
        pictures, segmentations = datum.pictures(name, frames), datum.segmentations(name, frames)
        labels, motions = self._rows(datum, "labels", index), self._rows(datum, "mots", index)
        if frames is not None:
            labels, motions = labels[list(frames)], motions[list(frames)]
        return ClipRecord(pictures, segmentations, labels, motions)

    def _number(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"there is no record {index} in {self.path}: it holds {self._count}")
        return index

    def _rows(self, datum: Datum, key: str, index: int) -> Float[Tensor, "num numbers"]:
        name = self._records.name(index)
        what = {"labels": "labels", "mots": "motion embeddings"}[key]
        try:
            rows = torch.from_numpy(datum.numbers(key))
        except ValueError as error:
            raise MediaError(f"{name} has {what} of {error}, which is no row of float32 for each picture") from error
        if key == "labels" and rows.shape[1] != LABEL:
            raise MediaError(f"{name} has labels of {rows.shape[1]} numbers, not {LABEL}: write the set again")
        if not torch.isfinite(rows).all():
            raise MediaError(f"the {what} of {name} hold NaN or infinite numbers: leave it out and write the set again")
        return rows


class PortraitLMDB(_PortraitFolder):
    """Photos (``Datum_genhead``, ``Datum_ffhq``), in the order of their numbers; may be sent to other processes.

    Args:
        path: the folder, which is called ``NAME_<resolution>_<count>``.

    Attributes:
        path: the folder.
        resolution: side of the pictures, pixels.

    Raises:
        MediaError: if it is not such a folder, or damaged; from its methods, for a record that is cut off, of another
            shape or not finite.
        ZooError: if the packages lmdb and protobuf are not installed.
    """

    def __getitem__(self, index: int) -> PortraitRecord:
        """A photo."""
        clip = self._read(index)
        if len(clip.images) != 1:
            raise MediaError(f"{self._records.name(index)} is a clip of {len(clip.images)} frames, not a photo")
        motion = clip.motions[0]
        return PortraitRecord(clip.images[0], clip.segmentations[0], clip.labels[0], motion if len(motion) else None)

    def label(self, index: int) -> Float[Tensor, " 437"]:
        """The label of a photo, without decoding it."""
        return self._labels(index)[0]


class ClipLMDB(_PortraitFolder):
    """Clips (``Datum_vfhq``), in the order of their numbers; see :class:`PortraitLMDB`. Photos are clips of one frame.

    Portrait4D's older messages are clips too: of each, the pictures and what belongs to them is read.
    """

    def __getitem__(self, index: int) -> ClipRecord:
        """A clip."""
        return self._read(index)

    def frames(self, index: int, frames: Sequence[int]) -> ClipRecord:
        """Some frames of a clip, in the order of ``frames``; of the others nothing but the numbers is read."""
        return self._read(index, frames)

    def labels(self, index: int) -> Float[Tensor, "time 437"]:
        """The labels of a clip's frames, without its pictures."""
        return self._labels(index)


def write_portraits(parent: str | Path, name: str, resolution: int, records: Iterable[PortraitRecord]) -> Path:
    """Write photos as GenHead's training set, pictures as PNG.

    Args:
        parent: folder in which ``NAME_<resolution>_<count>`` is made; a set of that name is replaced.
        name: of the set.
        resolution: side of the pictures, pixels.
        records: photos.

    Returns:
        The folder.

    Raises:
        MediaError: if there are none, or one is of another shape or not finite.
        ZooError: if the place cannot be written or lmdb and protobuf are not installed.
    """

    def messages() -> Iterator[bytes]:
        for index, record in enumerate(records):
            label, motion = record.label[None], record.motion
            motions = torch.zeros(1, 0) if motion is None else motion[None]
            clip = ClipRecord(record.image[None], record.segmentation[None], label, motions)
            image = encode_image(record.image)
            yield portrait_message(
                clip, image, encode_image(record.segmentation.flip(-1)), resolution, f"photo {index}"
            )

    return write_set(parent, name, resolution, messages())


def write_clips(parent: str | Path, name: str, resolution: int, records: Iterable[ClipRecord]) -> Path:
    """Write clips as Portrait4D's training set; arguments, result and errors as of :func:`write_portraits`."""

    def messages() -> Iterator[bytes]:
        for index, clip in enumerate(records):
            yield clip_message(clip, resolution, f"clip {index}")

    return write_set(parent, name, resolution, messages())


def portrait_message(clip: ClipRecord, image: bytes, segmentation: bytes, resolution: int, name: str) -> bytes:
    """GenHead's message of a photo whose files are known.

    Args:
        clip: the photo, as a clip of one frame.
        image: its file.
        segmentation: its mask's file.
        resolution: side that the pictures must have, pixels.
        name: what errors call it.

    Raises:
        MediaError: if it is of another shape, not finite or too large.
    """
    contents = _contents(clip, resolution, name) | {"images": image, "segs": segmentation}
    return Datum("Datum_genhead", resolution, resolution, contents=contents).encode(name)


def clip_message(clip: ClipRecord, resolution: int, name: str) -> bytes:
    """Portrait4D's message of a clip; arguments and errors as of :func:`portrait_message`."""
    contents = _contents(clip, resolution, name)
    contents |= {"images": _bytes(clip.images), "segs": _bytes(clip.segmentations)}
    return Datum("Datum_ffhq", resolution, resolution, len(clip.images), contents).encode(name)


def write_set(parent: str | Path, name: str, resolution: int, messages: Iterable[bytes]) -> Path:
    """Write messages as ``PARENT/NAME_<resolution>_<count>``: whole or not at all; see :func:`write_portraits`."""
    parent = Path(parent)
    if not name or "/" in name:
        raise MediaError(f"{name!r} cannot be the name of a set")
    with replacing(parent / f"{name}_{resolution}.unnamed") as temporary:
        count = write_records(temporary, messages)
        if not count:
            raise MediaError("there are no pictures to write")
    target = parent / f"{name}_{resolution}_{count}"
    with replacing(target) as last:
        (parent / f"{name}_{resolution}.unnamed").rename(last)
    return target


def _contents(clip: ClipRecord, resolution: int, name: str) -> dict[str, bytes]:
    num = len(clip.images)
    pictures = (num, resolution, resolution, 3)
    expected: dict[str, tuple[int, ...]] = {"images": pictures, "segmentations": pictures, "labels": (num, LABEL)}
    expected["motions"] = (num, clip.motions.shape[-1])
    for part, shape in expected.items():
        value = getattr(clip, part)
        if value.shape != shape or not num:
            raise MediaError(f"{part} of {name} are {list(value.shape)}, not {list(shape)}")
        if value.dtype != torch.uint8 and not torch.isfinite(value).all():
            raise MediaError(f"{part} of {name} hold NaN or infinite numbers")
    contents = {"labels": _bytes(clip.labels, "<f4")}
    return contents | ({"mots": _bytes(clip.motions, "<f4")} if clip.motions.shape[1] else {})


def _bytes(values: Tensor, dtype: str = "u1") -> bytes:
    return np.ascontiguousarray(values.cpu().numpy(), dtype=dtype).tobytes()
