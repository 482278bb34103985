"""Where fetched and converted weights are kept.

The root is ``PORTRAITZOO_CACHE``, else the folder that Hugging Face keeps for downstream libraries (in ``HF_HOME``,
which follows ``XDG_CACHE_HOME``), so that its tools see and clean it. Files of Hub repositories stay in
huggingface_hub's cache.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants

from portraitzoo.errors import ZooError


def cache_root() -> Path:
    """The folder under which this package keeps files; it may not exist yet."""
    own = os.environ.get("PORTRAITZOO_CACHE")
    return Path(own).expanduser() if own else Path(constants.HF_ASSETS_CACHE) / "portraitzoo"


def converted_folder(name: str) -> Path:
    """Where the converted weights of entry ``name`` are kept."""
    return cache_root() / "models" / name


def download_folder(name: str) -> Path:
    """Where files of entry ``name`` arrive, and wait until they are converted."""
    return cache_root() / "downloads" / name


@contextmanager
def entry_lock(name: str) -> Iterator[None]:
    """Keep other processes from fetching or converting entry ``name`` meanwhile.

    Raises:
        ZooError: if the cache cannot be written.
    """
    folder = cache_root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        lock.acquire()
    except OSError as error:
        raise ZooError(f"cannot write the cache {folder.parent}: {error.strerror}; set PORTRAITZOO_CACHE") from error
    try:
        yield
    finally:
        lock.release()
