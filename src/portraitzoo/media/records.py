"""Portrait4D's and GenHead's LMDB folders: protobuf records of images, read without generated classes.

Key ``num_samples`` holds a decimal count, keys ``00000000`` ... the records. A record's fields are numbered: 1 to 3 the
channels, height and width. GenHead has an encoded image in field 4. Portrait4D has a number of pictures in field 4 and
their bytes in field 5: either one encoded image (FFHQ) or raw RGB frames one after the other (VFHQ).
"""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.extras import import_extra
from portraitzoo.media.images import decode_image

_COUNT = b"num_samples"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf

_environments: dict[Path, Any] = {}
_opening = threading.Lock()


class RecordFile:
    """The records of one LMDB, opened for reading when first needed; may be sent to other processes.

    Args:
        path: the folder with ``data.mdb``, or a file.

    Raises:
        MediaError: from its methods, if it is no LMDB of such records or is damaged.
        ZooError: if the package lmdb is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()

    @staticmethod
    def matches(path: Path) -> bool:
        """Whether a path is an LMDB."""
        return (path / "data.mdb").is_file() or (path.suffix in (".lmdb", ".mdb") and path.is_file())

    @property
    def file(self) -> Path:
        """Where the bytes are."""
        return self.path / "data.mdb" if self.path.is_dir() else self.path

    def __len__(self) -> int:
        text = self._value(_COUNT)
        if not text.isdigit():
            raise MediaError(f"{self.path} does not say how many records it holds: its num_samples is {text[:20]!r}")
        return int(text)

    @cached_property
    def moving(self) -> bool:
        """Whether the records are clips (many raw frames each) rather than single images."""
        return len(self) > 0 and self._raw(self.fields(0)) is not None

    def fields(self, number: int) -> dict[int, int | bytes]:
        """Fields of a record by their numbers."""
        return message_fields(self._value(f"{number:08d}".encode()), f"record {number} of {self.path}")

    def frames(self, number: int) -> UInt8[Tensor, "time height width 3"]:
        """Pictures of a record, RGB."""
        fields = self.fields(number)
        raw = self._raw(fields)
        if raw is not None:
            return torch.from_numpy(raw.copy())
        content = next((value for key in (4, 5) if isinstance(value := fields.get(key), bytes)), None)
        if content is None:
            raise MediaError(f"record {number} of {self.path} holds no image")
        return decode_image(content, f"the image in record {number} of {self.path}")[None]

    def _raw(self, fields: dict[int, int | bytes]) -> UInt8[np.ndarray, "time height width 3"] | None:
        """Raw frames, if that is what the fields hold."""
        count, content = fields.get(4), fields.get(5)
        channels, height, width = (fields.get(key, 0) for key in (1, 2, 3))
        if not isinstance(count, int) or not isinstance(content, bytes) or count < 1 or channels != 3:
            return None
        assert isinstance(height, int) and isinstance(width, int)
        if len(content) != count * height * width * 3:
            return None
        return np.frombuffer(content, np.uint8).reshape(count, height, width, 3)

    def _value(self, key: bytes) -> bytes:
        lmdb = import_extra("lmdb", "lmdb")
        try:
            with _opening:
                if self.path not in _environments:  # one process may open a file only once
                    options = {"readonly": True, "lock": False, "readahead": False}
                    _environments[self.path] = lmdb.open(str(self.path), subdir=self.path.is_dir(), **options)
            with _environments[self.path].begin() as transaction:
                value = transaction.get(key)
        except lmdb.Error as error:
            raise MediaError(f"{self.path} is no LMDB that can be read ({error}): copy it again") from error
        if value is None:
            raise MediaError(f"{self.path} has no {key.decode()}: it is not laid out as Portrait4D's LMDB, or damaged")
        return value


def message_fields(message: bytes, name: str) -> dict[int, int | bytes]:
    """Fields of a protobuf message by number: whole numbers and bytes (https://protobuf.dev/programming-guides/encoding).

    Raises:
        MediaError: if it is cut off or no such message; it is called ``name``.
    """
    fields: dict[int, int | bytes] = {}
    position = 0
    try:
        while position < len(message):
            tag, position = _varint(message, position)
            wire, number = tag & 7, tag >> 3
            if wire == _VARINT:
                fields[number], position = _varint(message, position)
                continue
            if wire == _BYTES:
                size, position = _varint(message, position)
            else:
                size = {_FIXED64: 8, _FIXED32: 4}[wire]
            if position + size > len(message):
                raise IndexError
            fields[number] = message[position : position + size]
            position += size
    except (IndexError, KeyError) as error:
        raise MediaError(f"{name} is damaged or of another layout") from error
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise IndexError
