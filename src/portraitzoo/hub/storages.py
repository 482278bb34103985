"""Storages and the tensors that are views of them, checked before anything is allocated.

A torch file stores each tensor as a view (offset, sizes, strides) of a storage, a flat run of numbers of one dtype.
Offsets, sizes and strides come from the file, so every one is checked against the bytes that are really there.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.records import Global, Record, shown

_LEGACY_CLASSES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_DTYPE_NAMES = (
    "float64 double float32 float float16 half bfloat16 int64 long int32 int int16 short int8 uint8 bool "
    "complex64 cfloat complex128 cdouble"
)
DTYPES: dict[tuple[str, str], torch.dtype] = {("torch", name): getattr(torch, name) for name in _DTYPE_NAMES.split()}

_DIMENSIONS = 32
_COPIES = 8
_SLACK = 64 * 2**20


class Allowance:
    """How many bytes of tensors a file may still describe: a small multiple of its own size.

    Views can repeat the numbers of a storage (stride 0), so a few bytes could otherwise describe any amount.

    Args:
        file_bytes: the length of the file.
    """

    def __init__(self, file_bytes: int) -> None:
        self.file_bytes = file_bytes
        self._storages = file_bytes
        self._tensors = _COPIES * file_bytes + _SLACK

    def unpacked(self, nbytes: int) -> None:
        """Note that the file is an archive whose members are ``nbytes`` long in all."""
        self._storages = max(self._storages, nbytes)

    def storage(self, nbytes: int) -> None:
        """Spend ``nbytes`` on a storage; all storages together cannot be longer than the file.

        Raises:
            CheckpointError: if they would be.
        """
        self._storages -= nbytes
        if nbytes < 0 or self._storages < 0:
            raise CheckpointError(f"a storage claims {nbytes} bytes, more than the file holds")

    def tensor(self, nbytes: int) -> None:
        """Spend ``nbytes`` on a tensor.

        Raises:
            CheckpointError: if all tensors together would be much larger than the file.
        """
        self._tensors -= nbytes
        if self._tensors < 0:
            raise CheckpointError("the tensors are many times larger than the file: their strides repeat its numbers")


@dataclass(eq=False, slots=True)
class Storage:
    """A flat run of numbers: ``values`` is a one-dimensional tensor of its dtype."""

    values: Tensor


def storage_dtype(cls: Any) -> torch.dtype:
    """The dtype of a storage class that a file names (``torch.FloatStorage`` ...; untyped ones count as bytes).

    Raises:
        CheckpointError: if it is no such class.
    """
    if isinstance(cls, Global) and cls.module in ("torch", "torch.cuda", "torch.storage"):
        if cls.name in _LEGACY_CLASSES:
            return _LEGACY_CLASSES[cls.name]
        if cls.name == "UntypedStorage":
            return torch.uint8
    named = cls.path if isinstance(cls, Global | Record) else cls
    raise CheckpointError(f"a storage is of the unknown class {shown(named)}")


def empty_storage(dtype: torch.dtype, numel: Any, allowance: Allowance) -> Storage:
    """A storage of ``numel`` elements still to be filled, if the file is long enough to hold them.

    Raises:
        CheckpointError: if ``numel`` is no count or the file is too short.
    """
    if not _is_count(numel):
        raise CheckpointError(f"a storage claims {shown(numel)} elements")
    allowance.storage(numel * dtype.itemsize)
    return Storage(torch.empty(numel, dtype=dtype))


def raw_bytes(storage: Storage) -> memoryview:
    """The storage's memory, to be filled from a file."""
    return storage.values.view(torch.uint8).numpy().data if storage.values.numel() else memoryview(bytearray())


def rebuild_tensor(
    allowance: Allowance, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
) -> Tensor:
    """The view of ``storage`` that a file describes; it shares the storage's memory.

    Args:
        allowance: what the file may still describe.
        storage: a :class:`Storage`.
        offset: first element.
        size: length of each axis.
        stride: step, in elements, along each axis.
        dtype: of the tensor where the storage is untyped.

    Raises:
        CheckpointError: if the view would reach outside of the storage, or is no view at all.
    """
    if not isinstance(storage, Storage):
        raise CheckpointError(f"a tensor lies in {shown(storage)} instead of a storage")
    values = storage.values
    if dtype is not None and dtype != values.dtype:
        if not isinstance(dtype, torch.dtype) or values.dtype != torch.uint8 or values.numel() % dtype.itemsize:
            raise CheckpointError(f"a tensor of {dtype} lies in a storage of {values.dtype}")
        values = values.view(dtype)
    size, stride = _counts(size), _counts(stride)
    if len(size) != len(stride) or not _is_count(offset):
        raise CheckpointError("a tensor's sizes, strides and offset do not belong together")
    numel = 1
    for length in size:
        numel *= length
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if (numel and last >= values.numel()) or offset > values.numel():
        raise CheckpointError(
            f"a tensor of shape {list(size)} reaches outside of its storage of {values.numel()} numbers"
        )
    allowance.tensor(numel * values.element_size())
    if not numel:
        return values.new_empty(size)
    # A storage may itself be a part of another one, and as_strided counts from the beginning of that.
    return torch.as_strided(values, size, stride, values.storage_offset() + offset)


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _DIMENSIONS or not all(map(_is_count, values)):
        raise CheckpointError("a tensor's sizes or strides are no counts")
    return tuple(values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
