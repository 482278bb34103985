"""The protobuf messages in which GenHead and Portrait4D keep photos and clips.

All of them begin with the channels, height and width of the pictures (fields 1 to 3). GenHead's goes on with the
contents; the others have the number of pictures in field 4 and the contents after it. Known by their field numbers:

* ``Datum_genhead``: one photo;
* ``Datum_ffhq`` and ``Datum_vfhq``, which are alike: one photo, or one clip of raw frames;
* ``Datum`` and ``Datum_static``, ``Datum_new`` and ``Datum_static_new``: views of synthetic heads with what a network
  is to reproduce in them. No released training reads these. Here their pictures, labels and motions are read like
  those of a clip; the features, depths, tri-planes, rendered masks and backgrounds stay bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.extras import import_extra
from portraitzoo.media.images import decode_image

_SIZES = ("channels", "height", "width")
_NUMBERS = (*_SIZES, "num")
LAYOUTS: dict[str, tuple[str, ...]] = {
    "Datum_genhead": (*_SIZES, "images", "segs", "labels", "mots"),
    "Datum_ffhq": (*_SIZES, "num", "images", "segs", "labels", "mots"),
    "Datum": (*_SIZES, "num", "images", "segs", "features", "depths", "triplanes", "labels", "mots"),
    "Datum_new": (
        *_SIZES, "num", "images", "segs", "segs_render", "features", "depths", "triplanes", "labels", "mots", "bgs",
    ),
}  # fmt: skip
"""Messages and their fields, numbered from 1. A message belongs to the first whose fields hold all of its own."""

# Protobuf's encoding: https://protobuf.dev/programming-guides/encoding
_VARINT, _BYTES = 0, 2
_LONGEST_VARINT = 10

LARGEST = (1 << 31) - 1
"""Bytes that protobuf lets a message have."""


@dataclass(frozen=True)
class Datum:
    """A message.

    Attributes:
        layout: a key of :data:`LAYOUTS`.
        height: of the pictures, pixels.
        width: of the pictures, pixels.
        num: number of pictures.
        contents: bytes by the names of the fields; those that are absent are left out. Of a message that was read they
            are parts of it, not copies, which hold as long as it does.
        channels: of the pictures.
    """

    layout: str
    height: int
    width: int
    num: int = 1
    contents: Mapping[str, bytes | memoryview] = field(default_factory=dict)
    channels: int = 3

    def encode(self, name: str) -> bytes:
        """The message's bytes.

        Raises:
            MediaError: if it would be larger than protobuf allows; it is called ``name``.
        """
        if sum(map(len, self.contents.values())) > LARGEST - 1024:
            raise MediaError(f"{name} would be larger than 2 GiB, which no record can be: take fewer or smaller frames")
        numbers = {"channels": self.channels, "height": self.height, "width": self.width, "num": self.num}
        known = {key: value for key, value in numbers.items() if key in LAYOUTS[self.layout]}
        contents = {key: bytes(value) for key, value in self.contents.items()}
        return _message_classes()[self.layout](**known, **contents).SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, message: bytes | memoryview, name: str) -> Datum:
        """Read a message: a clip is large, and often little of it is wanted, so nothing is copied.

        Raises:
            MediaError: if it is cut off or of no known layout; it is called ``name``.
        """
        try:
            found = list(_message_fields(memoryview(message).cast("B")))
        except (IndexError, ValueError) as error:
            raise MediaError(f"{name} is damaged or of another layout: copy it again") from error
        for layout, fields in LAYOUTS.items():
            keys = dict(enumerate(fields, start=1))
            known = all(
                number in keys and isinstance(value, int) == (keys[number] in _NUMBERS) for number, value in found
            )
            values = {keys[number]: value for number, value in found} if known else {}
            if fields[3] not in values:
                continue
            contents = {key: value for key, value in values.items() if isinstance(value, memoryview)}
            numbers = {key: value for key, value in values.items() if isinstance(value, int)}
            return cls(layout, **{"height": 0, "width": 0, **numbers}, contents=contents)
        raise MediaError(f"{name} is damaged or of another layout: copy it again")

    @property
    def raw(self) -> bool:
        """Whether the pictures are plain RGB bytes rather than an encoded image."""
        size = self.num * self.height * self.width * 3
        return self.layout != "Datum_genhead" and 0 < size == len(self.contents.get("images", b""))

    def pictures(self, name: str, frames: Sequence[int] | None = None) -> UInt8[Tensor, "time height width 3"]:
        """The pictures, RGB.

        Args:
            name: what errors call the record.
            frames: which of them; None for all.

        Raises:
            MediaError: if there are none, or they cannot be decoded.
        """
        if "images" not in self.contents:
            raise MediaError(f"{name} holds no image")
        if self.raw:
            return self._raw_frames(self.contents["images"], frames)
        if self.num != 1:
            raise MediaError(f"{name} says that it holds {self.num} pictures, but its bytes are not theirs")
        picture = self._decode(self.contents["images"], f"the image in {name}")[None]
        return picture if frames is None else picture[list(frames)]

    def segmentations(self, name: str, frames: Sequence[int] | None = None) -> UInt8[Tensor, "time height width 3"]:
        """The masks of the foreground, white; in files of one channel that is repeated.

        The channels of an encoded mask are in OpenCV's order, as the authors read it: other than those of the image.
        Arguments and errors as of :meth:`pictures`.
        """
        content = self.contents.get("segs")
        if not content:
            raise MediaError(f"{name} holds no segmentation: write the set again with one")
        if not self.raw:
            mask = self._decode(content, f"the segmentation in {name}").flip(-1)[None].contiguous()
            return mask if frames is None else mask[list(frames)]
        if len(content) * 3 not in (len(self.contents["images"]), len(self.contents["images"]) * 3):
            raise MediaError(f"the segmentations in {name} are of another size than its {self.num} pictures")
        return self._raw_frames(content, frames)

    def _raw_frames(
        self, content: bytes | memoryview, frames: Sequence[int] | None
    ) -> UInt8[Tensor, "time height width 3"]:
        stored = np.frombuffer(content, np.uint8).reshape(self.num, self.height, self.width, -1)
        chosen = torch.from_numpy(stored.copy() if frames is None else stored[list(frames)])
        return chosen.expand(-1, -1, -1, 3).contiguous()

    def _decode(self, content: bytes | memoryview, name: str) -> UInt8[Tensor, "height width 3"]:
        content = bytes(content)
        size = _size(content)
        if size and size != (self.width, self.height):
            told = f"{self.width}x{self.height}"
            raise MediaError(f"{name} is {size[0]}x{size[1]}, not {told} as its record says")
        return decode_image(content, name)

    def numbers(self, key: str) -> np.ndarray:
        """A field of little-endian float32 numbers, an equal count for each picture: [num, count].

        Raises:
            ValueError: if it cannot be shared out like that.
        """
        content = self.contents.get(key, b"")
        if self.num < 1 or len(content) % (4 * self.num):
            raise ValueError(f"{len(content)} bytes")
        return np.frombuffer(content, "<f4").reshape(self.num, len(content) // 4 // self.num).astype(np.float32)


def _size(content: bytes) -> tuple[int, int] | None:
    """Width and height that an image file claims; a few bytes may claim a picture that fills the memory."""
    try:
        with Image.open(BytesIO(content)) as file:
            return file.size
    except Image.DecompressionBombError:
        return 1 << 16, 1 << 16
    except (OSError, SyntaxError, ValueError):
        return None


def _message_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Fields of a protobuf message by their numbers, in its order: integers of 32 bits, and bytes.

    Raises:
        IndexError: if it ends too soon.
        ValueError: if there are fields of other kinds.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        value, place = _varint(message, place)
        if key & 7 == _VARINT:
            yield key >> 3, (value + (1 << 31)) % (1 << 32) - (1 << 31)
            continue
        if key & 7 != _BYTES:
            raise ValueError(f"field {key >> 3} is neither a number nor bytes")
        if value > len(message) - place:
            raise IndexError(f"field {key >> 3} is cut off")
        yield key >> 3, message[place : place + value]
        place += value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """An integer, seven bits a byte from the lowest on, and the place behind it."""
    value = 0
    for shift in range(0, _LONGEST_VARINT * 7, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("an integer is too long")


@functools.lru_cache(maxsize=1)
def _message_classes() -> dict[str, Any]:
    """Protobuf's classes for :data:`LAYOUTS`."""
    descriptions = import_extra("google.protobuf.descriptor_pb2", "lmdb")
    pools = import_extra("google.protobuf.descriptor_pool", "lmdb")
    factory = import_extra("google.protobuf.message_factory", "lmdb")
    kinds = descriptions.FieldDescriptorProto
    file = descriptions.FileDescriptorProto(name="portrait_records.proto", package="portraitzoo", syntax="proto2")
    for name, fields in LAYOUTS.items():
        message = file.message_type.add(name=name)
        for number, key in enumerate(fields, start=1):
            kind = kinds.TYPE_INT32 if key in _NUMBERS else kinds.TYPE_BYTES
            message.field.add(name=key, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = pools.DescriptorPool()
    pool.Add(file)
    return {name: factory.GetMessageClass(pool.FindMessageTypeByName(f"portraitzoo.{name}")) for name in LAYOUTS}
