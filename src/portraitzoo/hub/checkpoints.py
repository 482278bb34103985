"""Reading checkpoint files of any origin without running anything in them.

    checkpoint = read_checkpoint("network-snapshot.pkl")
    weights = tensors_of_module(checkpoint["G_ema"])

What a file contains becomes plain Python data, tensors, and inert :class:`~portraitzoo.hub.records.Record` objects.
"""

import mmap
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.storages import Allowance, Storage
from portraitzoo.hub.torch_files import is_legacy, read_legacy, read_pickle, read_tar, read_zip

_FOREIGN = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a RIFF (AVI or WebP) file",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"version https://git-lfs": "a git-lfs pointer, not the file itself: run `git lfs pull` where it came from",
}
_PICKLE_MAGIC = b"\x80"
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")
_TAR_MAGIC = slice(257, 262)

# What a damaged file makes the readers of numbers, text and archives raise; CheckpointError itself passes through.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_checkpoint(path: str | Path) -> Any:
    """The content of a checkpoint file, whatever wrote it; nothing in the file is executed or imported.

    Read are ``torch.save`` files of every age (zip, legacy, tar; state dicts, training checkpoints, whole modules),
    TorchScript archives (their tensors), NVIDIA's persistence pickles, other plain pickles, and safetensors. The kind
    is told from the content, not from the suffix. Tensors come back on the CPU, without gradients, as views of their
    storages; NumPy arrays and scalars as such and as Python numbers; every class or function of the file as a
    :class:`~portraitzoo.hub.records.Global` and every other object as a :class:`~portraitzoo.hub.records.Record`.

    Time and memory are proportional to the size of the file, whatever numbers stand in it.

    Args:
        path: the file.

    Raises:
        CheckpointError: in one line: if the file is missing, is something else, is damaged or cut short, or is built to
            exhaust memory or time.
    """
    path = Path(path)
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except FileNotFoundError as error:
        raise CheckpointError(f"cannot read {path}: there is no such file") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"cannot read {path}: it is a folder, not a checkpoint file") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except _DAMAGE as error:
        told = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"cannot read {path}: the file is damaged ({told})") from error


def _read(path: Path) -> Any:
    size = path.stat().st_size
    allowance = Allowance(size)
    with path.open("rb") as stream:
        head = stream.read(512)
        _refuse_other_kinds(head)
        if head[:2] == b"PK":
            return _plain(read_zip(path, allowance))
        if head[_TAR_MAGIC] == b"ustar":
            return _plain(read_tar(path, allowance))
        if _is_safetensors(head, size):
            return _read_safetensors(path)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _plain(read_legacy(data, allowance) if is_legacy(data) else _read_pickle(data, allowance))


def _refuse_other_kinds(head: bytes) -> None:
    if not head:
        raise CheckpointError("the file is empty")
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise CheckpointError(f"it is no checkpoint but {kind}" if " first" not in kind else f"it is {kind}")
    if head.lstrip()[:16].lower().startswith(_WEB_PAGE):
        raise CheckpointError("it is no checkpoint but a web page: the download gave an error page, fetch it again")


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _read_pickle(data: mmap.mmap, allowance: Allowance) -> Any:
    try:
        return read_pickle(data, allowance)
    except CheckpointError as error:
        if data[:1] == _PICKLE_MAGIC:
            raise
        # Only the oldest pickles begin otherwise; most such files are something else altogether.
        raise CheckpointError(f"it is no checkpoint of a known kind (as an old pickle: {error})") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"the safetensors file is damaged ({error})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Storage):
        # A file that holds nothing but one storage: its numbers.
        return value.values
    if not isinstance(value, dict | list | tuple | set | frozenset) and type(value).__module__ == "builtins":
        raise CheckpointError(f"it holds only {type(value).__name__} data, no weights")
    return value
