"""Where shipped files lie, and writing that leaves either the whole file or nothing."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path

from portraitzoo.errors import ZooError


def shipped(name: str) -> Path:
    """Folder ``name`` (``zoo`` or ``configs``) of this installation: inside the package, or of the checkout in use."""
    inside = Path(str(resources.files("portraitzoo"))) / name
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / name


@contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Path beside ``target`` to write a file or a folder at; it takes ``target``'s place when the block ends well.

    If the block raises (Ctrl-C included), what was written is removed and ``target`` is left as it was. An existing
    folder at ``target`` is replaced as a whole. The temporary name keeps the suffix of ``target``, because writers
    choose their format by it.

    Raises:
        ZooError: if the disk is full or the place cannot be written.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            discarded = temporary.with_name(temporary.name + ".old")
            target.rename(discarded)
            temporary.rename(target)
            shutil.rmtree(discarded)
        else:
            temporary.replace(target)
    except OSError as error:
        _remove(temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ZooError(f"no space left on the disk of {target}: free some and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise ZooError(f"cannot write {target}: {os.strerror(error.errno)}; choose another place") from error
        raise
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
