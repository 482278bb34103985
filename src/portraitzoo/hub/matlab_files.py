"""Arrays of MATLAB files, as Deep3DFaceRecon ships its data. Such files hold numbers; nothing in them is executed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from portraitzoo.errors import CheckpointError

_DAMAGE = (MatReadError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, NotImplementedError)


def read_matlab(path: str | Path, names: Iterable[str], wanted: str) -> dict[str, np.ndarray]:
    """The named arrays of integers or floating-point numbers in a file, as they are there.

    Args:
        path: of the file.
        names: of the arrays; others are not read.
        wanted: what messages call such a file.

    Raises:
        CheckpointError: in one line, if the file cannot be read or lacks an array.
    """
    names = list(names)
    try:
        with Path(path).open("rb") as file:
            content = loadmat(file, variable_names=names)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (*_DAMAGE, zlib.error) as error:
        told = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"cannot read {path}: it is damaged, or no MATLAB file ({told})") from error
    for name in names:
        value = content.get(name)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise CheckpointError(f"{path} lacks '{name}': it is not {wanted}")
    return {name: content[name] for name in names}
