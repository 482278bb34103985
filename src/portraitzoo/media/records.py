"""LMDB folders of portraits: key ``num_samples`` holds a decimal count, keys ``00000000`` ... the records.

The records are protobuf messages (:mod:`~portraitzoo.media.portrait_records`). LMDB maps its file into memory and
trusts what it finds there; a file that is shorter than it says would end the process, so its length is checked first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.extras import import_extra
from portraitzoo.media.portrait_records import Datum

_COUNT = b"num_samples"
_COMMIT_EVERY = 200
_MAP_SIZE = 1 << 40  # room in the address space, not on the disk

Value = TypeVar("Value")

_environments: dict[Path, tuple[tuple[int, int], Any]] = {}
_opening = threading.Lock()


class RecordFile:
    """The records of one LMDB, opened for reading when first needed; may be sent to other processes.

    Args:
        path: the folder with ``data.mdb``, or a file.

    Raises:
        MediaError: from its methods, if it is no LMDB of such records or is damaged.
        ZooError: if the packages lmdb and protobuf are not installed.
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
        text = self._read(_COUNT, bytes)
        if not text.isdigit() or len(text) > 8:
            raise MediaError(f"{self.path} does not say how many records it holds: its num_samples is {text[:20]!r}")
        return int(text)

    @cached_property
    def moving(self) -> bool:
        """Whether the records are clips (many raw frames each) rather than single images."""
        return len(self) > 0 and self.read(0, lambda datum: datum.raw)

    def read(self, number: int, convert: Callable[[Datum], Value]) -> Value:
        """What ``convert`` makes of a record's message; it may keep no part of that, which lies in LMDB's map."""
        return self._read(f"{number:08d}".encode(), lambda value: convert(Datum.decode(value, self.name(number))))

    def frames(self, number: int) -> UInt8[Tensor, "time height width 3"]:
        """Pictures of a record, RGB."""
        return self.read(number, lambda datum: datum.pictures(self.name(number)))

    def name(self, number: int) -> str:
        """A record, for people."""
        return f"record {number} of {self.path}"

    def _read(self, key: bytes, convert: Callable[[memoryview], Value]) -> Value:
        lmdb = import_extra("lmdb", "lmdb")
        try:
            # A large record is parsed where it lies.
            with self._environment(lmdb).begin(buffers=True) as transaction:
                value = transaction.get(key)
                if value is not None:
                    return convert(value)
        except lmdb.Error as error:
            raise MediaError(f"{self.path} is no LMDB that can be read ({error}): copy it again") from error
        raise MediaError(f"{self.path} has no {key.decode()}: it is not laid out as Portrait4D's LMDB, or damaged")

    def _environment(self, lmdb: Any) -> Any:
        with _opening:
            try:
                file = self.file.stat()
            except OSError as error:
                raise MediaError(f"there is no LMDB {self.path}: give the folder that holds data.mdb") from error
            # Neither what a forked process inherited nor what was written over may be read.
            wanted = os.getpid(), file.st_ino
            found, environment = _environments.pop(self.path, (None, None))
            if found != wanted:
                if environment is not None:
                    environment.close()
                environment = self._open(lmdb, file.st_size)
            _environments[self.path] = wanted, environment
            return environment

    def _open(self, lmdb: Any, size: int) -> Any:
        options = {"readonly": True, "lock": False, "readahead": False, "create": False}
        if not size:
            raise lmdb.InvalidError("the file is empty")
        environment = lmdb.open(str(self.path), subdir=self.path.is_dir(), **options)
        told = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if size < told:
            environment.close()
            raise MediaError(f"{self.path} is cut off: {size} of {told} bytes are there; copy it again")
        return environment


def write_records(folder: Path, records: Iterable[bytes]) -> int:
    """Write messages as a new LMDB.

    Args:
        folder: that is made for it.
        records: messages, which are numbered as they come.

    Returns:
        How many there were.

    Raises:
        ZooError: if the disk is full or the place cannot be written, or the package lmdb is not installed.
    """
    lmdb = import_extra("lmdb", "lmdb")
    folder.mkdir(parents=True)
    count = 0
    try:
        with lmdb.open(str(folder), map_size=_MAP_SIZE, lock=False) as environment:
            transaction = environment.begin(write=True)
            for record in records:
                if count and count % _COMMIT_EVERY == 0:
                    transaction.commit()
                    transaction = environment.begin(write=True)
                transaction.put(f"{count:08d}".encode(), record, append=True)
                count += 1
            transaction.put(_COUNT, str(count).encode(), append=True)
            transaction.commit()
    except lmdb.Error as error:
        raise ZooError(f"cannot write the LMDB ({error}): see whether the disk is full, or choose another") from error
    return count
