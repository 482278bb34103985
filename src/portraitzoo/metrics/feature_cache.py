"""Features on disk, kept under a key of content, protocol and network, appended to in shards.

An interrupted extraction leaves whole shards; the next run continues after them. A shard that does not read back, or
does not belong, is thrown away and computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from portraitzoo.files import replacing

_OPEN_SHARDS = 16  # several processes write shards side by side: reading in order goes round them
_LEFTOVER_SECONDS = 24 * 3600
_FORMAT = 2  # part of every key: raise it when the meaning of a shard changes


def default_cache() -> Path:
    """Folder of the features of this user: ``portraitzoo/features`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "portraitzoo" / "features"


def digest(key: Mapping[str, object]) -> str:
    """Short hexadecimal name of a JSON-able key; the order of its entries does not matter."""
    text = json.dumps({"format": _FORMAT, **key}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What is kept of one item: its feature rows, and what was noticed about it (its size, frame rate ...)."""

    rows: Float32[np.ndarray, "rows features"]
    traits: tuple[str, ...] = ()


class FeatureCache:
    """Feature rows of the items of one source, by item number.

    Args:
        root: folder of all caches; None keeps the rows in memory only.
        key: everything that the features depend on (source fingerprint, protocol fields, network checksum).
        seconds: how often rows in memory are written out as a shard, what an interruption can lose; more often at
            first, so that short runs lose little too.

    Attributes:
        folder: where the shards lie, or None.
        rebuilt: number of damaged shards that were thrown away.
    """

    def __init__(self, root: Path | None, key: Mapping[str, object], seconds: float = 20.0) -> None:
        self.folder = None if root is None else root / digest(key)
        self.rebuilt = 0
        self._seconds = seconds
        self._patience = min(1.0, seconds)
        self._written = time.monotonic()
        self._pending: dict[int, Entry] = {}
        self._shard_of: dict[int, Path] = {}
        self._open: dict[Path, dict[int, Entry]] = {}
        if self.folder is not None and self.folder.is_dir():
            self._sweep()
            for shard in sorted(self.folder.glob("shard-*.npz")):
                for item in self._read(shard):
                    self._shard_of[item] = shard
        elif self.folder is not None:
            with replacing(self.folder / "key.json") as path:
                path.write_text(json.dumps(key, sort_keys=True, default=str, indent=1))

    def __contains__(self, item: int) -> bool:
        return item in self._pending or item in self._shard_of

    def add(self, item: int, entry: Entry) -> None:
        """Keep the features of one item; written to disk with others, every ``seconds``."""
        self._pending[item] = entry
        if time.monotonic() - self._written > self._patience:
            self._patience = min(2 * self._patience, self._seconds)
            self.flush()

    def __getitem__(self, item: int) -> Entry:
        """What is kept of an item that is in the cache.

        Raises:
            KeyError: if it is not.
        """
        if item in self._pending:
            return self._pending[item]
        shard = self._shard_of[item]
        if shard not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))
            self._open[shard] = self._read(shard)
        return self._open[shard][item]

    def flush(self) -> None:
        """Write what is in memory as one more shard. Without a folder the rows stay in memory."""
        self._written = time.monotonic()
        if self.folder is None or not self._pending:
            return
        items = sorted(self._pending)
        entries = [self._pending[item] for item in items]
        shard = self.folder / f"shard-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.npz"
        with replacing(shard) as path:
            np.savez(
                path,
                items=np.array(items, dtype=np.int64),
                counts=np.array([len(entry.rows) for entry in entries], dtype=np.int64),
                features=np.concatenate([entry.rows for entry in entries]).astype(np.float32),
                traits=np.array([json.dumps(entry.traits) for entry in entries]),
            )
        for item in items:
            self._shard_of[item] = shard
        self._pending.clear()

    def _sweep(self) -> None:
        """Remove what killed runs left half-written; a day old it is nobody's any more."""
        assert self.folder is not None
        for leftover in self.folder.glob(".shard-*"):
            with suppress(OSError):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                    leftover.unlink()

    def _read(self, shard: Path) -> dict[int, Entry]:
        try:
            with np.load(shard, allow_pickle=False) as archive:
                items, counts, features = archive["items"], archive["counts"], archive["features"]
                traits = [tuple(json.loads(str(text))) for text in archive["traits"]]
            if features.ndim != 2 or features.dtype != np.float32 or int(counts.sum()) != len(features):
                raise ValueError("not the rows that the shard says it has")
            blocks = np.split(features, np.cumsum(counts)[:-1])
            entries = zip(items, blocks, traits, strict=True)
            return {int(item): Entry(block, seen) for item, block, seen in entries}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            self.rebuilt += 1
            shard.unlink(missing_ok=True)
            return {}
