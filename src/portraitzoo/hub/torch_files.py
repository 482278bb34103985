"""The three containers that ``torch.save`` has written over the years, read without running anything in them.

* zip (torch >= 1.6): ``NAME/data.pkl`` and one member ``NAME/data/KEY`` per storage; TorchScript archives alike;
* legacy (torch 0.1.10 to 1.5, and the inside of NVIDIA's pickles): five pickles, then the raw storages;
* tar (before 0.1.10): members ``storages``, ``tensors`` and ``pickle``.
"""

import mmap
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.pickle_calls import plain_calls, tensor_calls
from portraitzoo.hub.pickles import Name, PickleMachine
from portraitzoo.hub.records import shown
from portraitzoo.hub.storages import (
    DTYPES,
    Allowance,
    Storage,
    empty_storage,
    raw_bytes,
    rebuild_tensor,
    storage_dtype,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MEMBERS = 200_000
_COMPRESSION = 20
_CHUNK = 2**20


def read_pickle(data: Any, allowance: Allowance) -> Any:
    """A bare pickle (NVIDIA persistence pickles, plain dicts), with torch's storages embedded as bytes.

    Args:
        data: the whole file, bytes or a memory map.
        allowance: what the file may describe.

    Raises:
        CheckpointError: if it is damaged or hostile.
    """
    machine = PickleMachine(data, calls=_calls(allowance), constants=DTYPES)
    value = machine.run()
    if machine.position != len(data):
        raise CheckpointError(f"{len(data) - machine.position} bytes follow the end of the pickle")
    return value


def is_legacy(data: Any) -> bool:
    """Whether ``data`` begins with the number by which torch marks its legacy files."""
    try:
        return PickleMachine(data[:64], calls={}, constants={}).run() == LEGACY_MAGIC
    except (CheckpointError, ValueError):
        return False


def read_legacy(data: Any, allowance: Allowance, *, nested: bool = False) -> Any:
    """A legacy torch file.

    Args:
        data: the whole file, bytes or a memory map.
        allowance: what the file may describe.
        nested: inside of another pickle, where it may not nest once more.

    Raises:
        CheckpointError: if it is damaged or hostile, or from a big-endian machine.
    """
    storages = _StorageTable(allowance)
    position = 0

    def run(calls: dict[Name, Callable[..., Any]], persistent: Callable[[Any], Any] | None = None) -> Any:
        nonlocal position
        machine = PickleMachine(data, position, calls=calls, constants=DTYPES, persistent=persistent)
        value, position = machine.run(), machine.position
        return value

    if run({}) != LEGACY_MAGIC or run({}) != _LEGACY_PROTOCOL:
        raise CheckpointError("it does not begin as a legacy torch file does")
    system = run({})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("it was written on a big-endian machine, which is not supported")
    calls = plain_calls() | tensor_calls(allowance) if nested else _calls(allowance)
    value = run(calls, storages.legacy)
    keys = run({})
    if not isinstance(keys, list) or set(map(type, keys)) - {str, int} or len(set(keys)) != len(keys):
        raise CheckpointError("its list of storages is damaged")
    for key in keys:
        position = storages.fill(key, data, position)
    storages.require_filled()
    return value


def read_zip(path: Path, allowance: Allowance) -> Any:
    """A zip that ``torch.save`` or ``torch.jit.save`` wrote. The checksum of every storage is verified.

    Storages that lie in it uncompressed and aligned, as torch writes them, are private memory maps of the file: what
    nobody looks at (a checkpoint's optimiser states, say) takes no memory. The file must not shrink while they live.

    Raises:
        CheckpointError: if it is damaged or hostile, or no torch file.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        members = _members(archive, allowance)
        roots = [name[: -len("data.pkl")] for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        roots = [root for root in roots if root.count("/") == min(other.count("/") for other in roots)]
        if len(roots) != 1:
            raise CheckpointError("it is a zip archive, but not one that torch.save wrote (it has not one data.pkl)")
        (root,) = roots
        order = members.get(root + "byteorder")
        if order is not None and _content(archive, order) != b"little":
            raise CheckpointError("it was written on a big-endian machine, which is not supported")
        storages: dict[str, Storage] = {}

        def persistent(identity: Any) -> Storage:
            kind, cls, key, _, numel = _identity(identity, 5)
            if kind != "storage" or not isinstance(key, str):
                raise CheckpointError("it refers to something that is not a storage")
            if key not in storages:
                member = members.get(f"{root}data/{key}")
                if member is None:
                    raise CheckpointError(f"the storage {shown(key)} is missing from it")
                dtype = storage_dtype(cls)
                if not isinstance(numel, int) or numel * dtype.itemsize != member.file_size:
                    raise CheckpointError(f"the storage {shown(key)} is not as long as stated")
                allowance.storage(member.file_size)
                begin = _beginning(member, mapped)
                if member.compress_type == zipfile.ZIP_STORED and numel and begin % dtype.itemsize == 0:
                    for _ in _chunks(archive, member):
                        pass  # only to verify the checksum
                    values = torch.frombuffer(mapped, dtype=dtype, count=numel, offset=begin)
                else:
                    values = torch.empty(numel, dtype=dtype)
                    _fill(raw_bytes(Storage(values)), archive, member)
                storages[key] = Storage(values)
            return storages[key]

        data = _content(archive, members[root + "data.pkl"])
        return PickleMachine(data, calls=_calls(allowance), constants=DTYPES, persistent=persistent).run()


def read_tar(path: Path, allowance: Allowance) -> Any:
    """A tar of torch before 0.1.10.

    Raises:
        CheckpointError: if it is damaged or hostile, or another tar.
    """
    with tarfile.open(path, "r:") as archive:
        content = {}
        for name in ("storages", "tensors", "pickle"):
            try:
                member = archive.getmember(name)
            except KeyError as error:
                raise CheckpointError(
                    "it is a tar archive, but not one that torch.save wrote: unpack it and give the file inside"
                ) from error
            stream = archive.extractfile(member) if member.isreg() and member.size <= allowance.file_bytes else None
            if stream is None:
                raise CheckpointError(f"its member {name} is no plain file of the stated length")
            content[name] = stream.read()
    objects: dict[Any, Any] = {}
    _tar_storages(content["storages"], allowance, objects)
    _tar_tensors(content["tensors"], allowance, objects)

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity:
            return identity[0]
        key = int(identity) if isinstance(identity, str) and len(identity) < 30 else identity
        if key not in objects:
            raise CheckpointError("it refers to a tensor that it does not hold")
        return objects[key]

    return PickleMachine(content["pickle"], calls=_calls(allowance), constants=DTYPES, persistent=persistent).run()


def _calls(allowance: Allowance) -> dict[Name, Callable[..., Any]]:
    def load_from_bytes(content: Any) -> Any:
        if not isinstance(content, bytes):
            raise CheckpointError("an embedded storage is not bytes")
        return read_legacy(content, allowance, nested=True)

    return plain_calls() | tensor_calls(allowance) | {("torch.storage", "_load_from_bytes"): load_from_bytes}


class _StorageTable:
    """The storages of a legacy file: announced in its pickle, filled from what follows the pickle."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._storages: dict[str | int, Storage] = {}
        self._views: dict[Any, Storage] = {}
        self._filled: set[str | int] = set()

    def legacy(self, identity: Any) -> Any:
        """Answer to a persistent id: a storage, a view of one, or a module class (which may carry its source)."""
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]
        kind, cls, key, _, numel, view = _identity(identity, 6)
        if kind != "storage" or not isinstance(key, str | int):
            raise CheckpointError("it refers to something that is not a storage")
        if key not in self._storages:
            self._storages[key] = empty_storage(storage_dtype(cls), numel, self._allowance)
        storage = self._storages[key]
        if view is None:
            return storage
        view_key, offset, length = _identity(view, 3)
        if view_key not in self._views:
            part = rebuild_tensor(self._allowance, storage, offset, (length,), (1,))
            self._views[view_key] = Storage(part)
        return self._views[view_key]

    def fill(self, key: str | int, data: Any, position: int) -> int:
        """Copy one storage out of ``data`` (an int64 count, then the numbers); returns the position after it."""
        if key not in self._storages:
            raise CheckpointError(f"the storage {shown(key)} belongs to no tensor")
        memory = raw_bytes(self._storages[key])
        begin = position + 8
        count = int.from_bytes(data[position:begin], "little", signed=True)
        if count != self._storages[key].values.numel() or begin + len(memory) > len(data):
            raise CheckpointError(f"the storage {shown(key)} is cut short or not as long as stated")
        memory[:] = data[begin : begin + len(memory)]
        self._filled.add(key)
        return begin + len(memory)

    def require_filled(self) -> None:
        """Refuse a file that announced more storages than it holds."""
        if missing := [key for key in self._storages if key not in self._filled]:
            raise CheckpointError(f"the storage {shown(missing[0])} is missing from it")


def _tar_storages(data: bytes, allowance: Allowance, objects: dict[Any, Any]) -> None:
    machine = PickleMachine(data, calls={}, constants={})
    for _ in range(_count(machine.run())):
        key, _, cls = _identity(machine.run(), 3)
        dtype = storage_dtype(cls)
        begin = machine.position + 8
        numel = int.from_bytes(data[machine.position : begin], "little", signed=True)
        storage = empty_storage(dtype, numel, allowance)
        memory = raw_bytes(storage)
        if begin + len(memory) > len(data):
            raise CheckpointError("a storage is cut short")
        memory[:] = data[begin : begin + len(memory)]
        machine.position = begin + len(memory)
        objects[key] = storage
    views = machine.run()
    for view in views if isinstance(views, list) else ():
        target, root, offset, numel = _identity(view, 4)
        objects[target] = Storage(rebuild_tensor(allowance, objects.get(root), offset, (numel,), (1,)))


def _tar_tensors(data: bytes, allowance: Allowance, objects: dict[Any, Any]) -> None:
    machine = PickleMachine(data, calls={}, constants={})
    for _ in range(_count(machine.run())):
        key, storage, _ = _identity(machine.run(), 3)

        def numbers(count: int) -> tuple[int, ...]:
            end = machine.position + 8 * count
            if not 0 <= count <= 64 or end > len(data):
                raise CheckpointError("the description of a tensor is cut short")
            words = [data[start : start + 8] for start in range(machine.position, end, 8)]
            machine.position = end
            return tuple(int.from_bytes(word, "little", signed=True) for word in words)

        # The number of axes is an int32; the four bytes after it are padding.
        dimensions = numbers(1)[0] & 0xFFFFFFFF
        size, stride, (offset,) = numbers(dimensions), numbers(dimensions), numbers(1)
        objects[key] = rebuild_tensor(allowance, objects.get(storage), offset, size, stride)


def _members(archive: zipfile.ZipFile, allowance: Allowance) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MEMBERS:
        raise CheckpointError(f"the zip archive has {len(infos)} members")
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise CheckpointError("the zip archive holds two members of one name")
    stored = sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED)
    whole = sum(info.file_size for info in infos)
    if stored > allowance.file_bytes or whole > _COMPRESSION * allowance.file_bytes:
        raise CheckpointError("the zip archive unpacks to far more than its own size")
    if any(info.flag_bits & 1 for info in infos):
        raise CheckpointError("the zip archive is encrypted")
    allowance.unpacked(whole)
    return members


def _beginning(member: zipfile.ZipInfo, data: mmap.mmap) -> int:
    """Where a member's bytes begin: behind its own header, whose last two fields are the lengths of two texts."""
    header = member.header_offset
    name, extra = struct.unpack_from("<HH", data, header + 26)
    return header + 30 + name + extra


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    buffer = bytearray(member.file_size)
    _fill(memoryview(buffer), archive, member)
    return bytes(buffer)


def _fill(memory: memoryview, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    position = 0
    for chunk in _chunks(archive, member):
        memory[position : position + len(chunk)] = chunk
        position += len(chunk)


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of a member, exactly as many as stated; at the end zipfile verifies the checksum."""
    left = member.file_size
    with archive.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise CheckpointError("a member of the zip archive is longer than stated")
            yield chunk
    if left:
        raise CheckpointError("a member of the zip archive is cut short")


def _identity(value: Any, length: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list) or not length <= len(value) <= length + 1:
        raise CheckpointError("a reference in it is not as torch writes it")
    return tuple(value[:length])


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MEMBERS:
        raise CheckpointError(f"it claims to hold {shown(value)} objects")
    return value
