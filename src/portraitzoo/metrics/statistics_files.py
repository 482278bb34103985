"""Reference statistics as files that say what they are: to be measured against again, and shared.

An ``.npz`` with ``mean``, ``cov``, ``num_items`` and a JSON ``header``: network and checksum, protocol, divisor of the
covariance, fingerprint of the data, counts, versions, licence. With the features kept it also holds ``features`` (one
row each), ``counts`` (rows of each item) and ``names`` (of items), by which KID, precision, recall, density and
coverage can be measured against it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from portraitzoo.errors import ZooError
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.results import Gathered

FORMAT = "portraitzoo-statistics"
VERSION = 1


@dataclass(frozen=True)
class StatisticsFile:
    """What a file of statistics holds.

    Attributes:
        statistics: mean and covariance, and in ``info`` what they are of.
        rows: feature rows of each item; None if they were not kept.
        names: what the items are called.
    """

    statistics: FeatureStatistics
    rows: Sequence[Float32[np.ndarray, "rows features"]] | None = None
    names: Sequence[str] = field(default=())

    @property
    def info(self) -> Mapping[str, Any]:
        """The header, without the divisor."""
        return self.statistics.info

    def save(self, path: str | Path) -> Path:
        """Write the file; it appears complete or not at all.

        Raises:
            ZooError: if its name does not end in ``.npz``, or it cannot be written.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ZooError(f"{path}: a file of statistics is named NAME.npz")
        if path.is_dir():
            raise ZooError(f"{path} is a folder: statistics are one file")
        further: dict[str, np.ndarray] = {}
        if self.rows is not None:
            counts = np.array([len(rows) for rows in self.rows], dtype=np.int64)
            further = {"features": np.concatenate(self.rows), "counts": counts, "names": np.array(list(self.names))}
        return self.statistics.save(path, **further)

    @classmethod
    def load(cls, path: str | Path) -> StatisticsFile:
        """Read a file of statistics, of portraitzoo or of others who write ``mean``, ``cov`` and ``num_items``.

        Raises:
            ZooError: if it is absent, damaged, something else, or of a newer format.
        """
        statistics = FeatureStatistics.load(path)
        name, _, version = str(statistics.info.get("format", f"{FORMAT}/{VERSION}")).partition("/")
        if name != FORMAT or not version.isdigit():
            raise ZooError(f"{path} is no file of statistics: its header calls it {name[:40]!r}")
        if int(version) > VERSION:
            raise ZooError(f"{path} was written by a newer portraitzoo (format {version}, not {VERSION}): upgrade")
        try:
            with np.load(path, allow_pickle=False) as archive:
                if "features" not in archive.files:
                    return cls(statistics)
                features, counts, names = archive["features"], archive["counts"], archive["names"]
        except Exception as error:  # NumPy and zlib raise many kinds for a damaged archive
            raise ZooError(f"{path} cannot be read as statistics ({error}): make it again") from error
        fits = features.ndim == 2 and features.shape == (statistics.num_items, statistics.num_features)
        if not fits or int(counts.sum()) != len(features) or len(names) != len(counts):
            raise ZooError(f"{path} is damaged: its features are not those that its counts say; make it again")
        rows = np.split(np.asarray(features, dtype=np.float32), np.cumsum(counts)[:-1])
        return cls(statistics, rows, [str(name) for name in names])

    def gathered(self) -> Gathered:
        """The side as measures read it."""
        side = Gathered(self.statistics)
        for item, (rows, name) in enumerate(zip(self.rows or (), self.names, strict=False)):
            side.rows[item], side.names[item] = rows, name
        return side

    def describe(self) -> dict[str, Any]:
        """Everything that the file says of itself, flat, for people and scripts."""
        info, statistics = self.info, self.statistics
        protocol = info.get("protocol", {})
        return {
            "metric": info.get("metric", "unknown"),
            "network": info.get("network", "unknown"),
            "checksum": info.get("checksum", "unknown"),
            "comparable": info.get("comparable", "unknown"),
            "protocol": info.get("protocol_name", "unknown"),
            **{f"protocol {name}": value for name, value in protocol.items()},
            "ddof": statistics.ddof,
            "items": statistics.num_items,
            "unit": info.get("unit", "unknown"),
            "features": statistics.num_features,
            "rank-deficient": statistics.rank_deficient,
            "features kept": self.rows is not None,
            **{f"data {name}": value for name, value in info.get("data", {}).items()},
            "licence": info.get("licence", "unknown"),
            "versions": ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items()),
            "created": info.get("created", "unknown"),
        }


def refuse_unless_comparable(first: StatisticsFile, second: StatisticsFile) -> None:
    """Raise ZooError, naming what differs, unless two files were made by one network and protocol."""
    told = [name for name in ("network", "checksum") if name in first.info and name in second.info]
    pairs = [(name, first.info[name], second.info[name]) for name in told]
    pairs += [
        ("number of features", first.statistics.num_features, second.statistics.num_features),
        ("ddof", first.statistics.ddof, second.statistics.ddof),
    ]
    ours, theirs = (file.info.get("protocol", {}) for file in (first, second))
    pairs += [(f"protocol field {name}", ours[name], theirs[name]) for name in ours if name in theirs]
    for name, here, there in pairs:
        if here != there:
            raise ZooError(
                f"these statistics cannot be compared: {name} is {str(here)[:24]} and {str(there)[:24]}; make both by "
                "one protocol and network"
            )


def compare(first: str | Path, second: str | Path) -> dict[str, Any]:
    """Fréchet distance between two files of statistics, and whether they are of the same data.

    Args:
        first: a file.
        second: another, by the same network and protocol.

    Returns:
        ``distance``, ``shift`` (the part that comes from the means), ``items`` of both, ``same_data`` (None if a file
        does not tell its data), ``notes``.

    Raises:
        ZooError: if a file cannot be read, or network, divisor or protocol differ.
    """
    ours, theirs = StatisticsFile.load(first), StatisticsFile.load(second)
    refuse_unless_comparable(ours, theirs)
    prints = [file.info.get("data", {}).get("fingerprint") for file in (ours, theirs)]
    notes = []
    for file, name in ((ours, first), (theirs, second)):
        if "checksum" not in file.info:
            notes.append(f"{Path(name).name} does not say by which network it was made")
        if file.statistics.rank_deficient:
            notes.append(f"{Path(name).name} is rank-deficient: the distance is mostly bias")
    if ours.statistics.num_items != theirs.statistics.num_items:
        notes.append("the counts differ, and a Fréchet distance depends on them")
    shift = (ours.statistics.mean - theirs.statistics.mean).square().sum()
    return {
        "distance": float(frechet_distance(ours.statistics, theirs.statistics)),
        "shift": float(shift),
        "items": [ours.statistics.num_items, theirs.statistics.num_items],
        "same_data": None if None in prints else prints[0] == prints[1],
        "notes": notes,
    }


def from_gathered(gathered: Gathered, info: Mapping[str, Any], keep_features: bool) -> StatisticsFile:
    """The file of what was gathered from a side.

    Args:
        gathered: sums, and all rows if they are to be kept.
        info: for the header, beside what the sums know of themselves.
        keep_features: whether the rows go into the file.
    """
    statistics = gathered.statistics
    if statistics is None:
        matrix = torch.from_numpy(gathered.matrix())
        statistics = FeatureStatistics(matrix.shape[1])
        statistics.append(matrix)
    statistics.info = {**statistics.info, **info, "format": f"{FORMAT}/{VERSION}"}
    if not keep_features:
        return StatisticsFile(statistics)
    return StatisticsFile(statistics, list(gathered.rows.values()), list(gathered.names.values()))
