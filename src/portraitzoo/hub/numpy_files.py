"""Reading ``.npy`` files, also those that hold objects (dicts, most often), without running anything in them."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.pickle_calls import NumpyArray, NumpyType, plain_calls
from portraitzoo.hub.pickles import PickleMachine

_LONGEST_HEADER = 10_000
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, IndexError, KeyError, MemoryError, RecursionError, TypeError),
    *(ValueError, SyntaxError, struct.error),
)


def read_numpy(path: str | Path) -> Any:
    """The content of a ``.npy`` file: an array, or the one object (a dict, say) that was saved as an array.

    Objects come back as plain Python data and arrays of numbers or text; classes in them as inert
    :class:`~portraitzoo.hub.records.Record` objects.

    Args:
        path: the file.

    Raises:
        CheckpointError: in one line: if the file is missing, is something else, or is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _read(stream)
    except CheckpointError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except _DAMAGE as error:
        told = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"cannot read {path}: it is damaged, or no NumPy file ({told})") from error


def _read(stream: Any) -> Any:
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(stream, max_header_size=_LONGEST_HEADER)
    if not dtype.hasobject:
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    if dtype != np.dtype(object):
        raise CheckpointError("its arrays have fields that hold objects")
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        calls = plain_calls() | {("numpy", "dtype"): _number_or_object}
        for core in ("numpy.core", "numpy._core"):
            calls[core + ".multiarray", "_reconstruct"] = lambda *_: np.empty(0, np.uint8).view(_Array)
        value = PickleMachine(data, stream.tell(), calls=calls, constants={}).run()
    if not isinstance(value, np.ndarray) or value.shape != shape:
        raise CheckpointError("the array in it is not of the shape that its header states")
    return value.item() if value.shape == () else value


class _Objects:
    """NumPy's dtype of objects while its pickle is read."""

    def __build__(self, state: Any) -> None:
        pass


def _number_or_object(code: Any, *rest: Any) -> NumpyType | _Objects:
    return _Objects() if code in ("O", "O4", "O8") else NumpyType(code, *rest)


class _Array(NumpyArray):
    """An array of numbers, text or objects."""

    def __build__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Objects)):
            super().__build__(state)
            return
        _, shape, _, fortran, content = state
        plain = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
        count = 1
        for length in shape if plain else ():
            count *= length
        if not plain or len(shape) > 32 or not isinstance(content, list) or len(content) != count:
            raise CheckpointError("an array of objects does not fit its shape")
        self.__setstate__((1, shape, np.dtype(object), bool(fortran), content))  # type: ignore[arg-type]
