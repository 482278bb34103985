"""NumPy files, which may be damaged, read from any thread."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from threading import Lock

import numpy as np

DAMAGE = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged NumPy file raises."""

# NumPy parses the headers with `ast`, whose parser in Python 3.11 and 3.12 fails at random when two threads are in it.
_reading = Lock()


def read_archive(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``; nothing in it is unpickled.

    Args:
        path: the file.
        names: those wanted, of which some may be absent; None for all.

    Raises:
        OSError: and the others of :data:`DAMAGE`, if it cannot be read.
    """
    with _reading, np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if names is None or name in names}


def read_array(path: Path) -> np.ndarray:
    """The array of an ``.npy``; nothing in it is unpickled.

    Raises:
        OSError: and the others of :data:`DAMAGE`, if it cannot be read.
    """
    with _reading:
        return np.load(path, allow_pickle=False)
