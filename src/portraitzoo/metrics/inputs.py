"""What may stand on a side of an evaluation, and which source serves it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from portraitzoo.errors import UnknownEntryError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.converting import STATISTICS
from portraitzoo.hub.download import fetch
from portraitzoo.hub.folders import is_model_folder
from portraitzoo.hub.index import get_entry
from portraitzoo.hub.loading import LAST_CHECKPOINT, load
from portraitzoo.media.clip import Clip
from portraitzoo.metrics import stylegan_statistics
from portraitzoo.metrics.folders import FootageSource, MultiviewFolderSource
from portraitzoo.metrics.frechet import FeatureStatistics
from portraitzoo.metrics.measures import FrechetMeasure, Measure
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.sources import ClipSource, ModelSource, Source
from portraitzoo.metrics.statistics_files import StatisticsFile
from portraitzoo.rendering.cameras import Camera

Input = str | Path | nn.Module | FeatureStatistics | Sequence[Clip]
"""A side: model entry or run, loaded model, folder or file of videos, images or statistics, or clips in memory."""


@dataclass(frozen=True)
class SavedStatistics:
    """A side of which mean and covariance are known, perhaps the features; ``published`` ones the index vouches for."""

    label: str
    file: StatisticsFile
    published: bool = False

    @property
    def statistics(self) -> FeatureStatistics:
        """Mean and covariance."""
        return self.file.statistics

    @property
    def detail(self) -> str:
        """What must be taken on trust."""
        known = self.published or "checksum" in self.statistics.info
        return "" if known else "the file does not say by which network and protocol it was made"

    def check(self, measures: Sequence[Measure]) -> None:
        """Find out whether all measures can take these statistics for a side.

        Raises:
            ZooError: if a measure needs items or features that are not there, or they are of another network, of
                unknown origin while the network's weights are random, or made by a protocol that differs in a field
                that matters.
        """
        for measure in measures:
            by_moments = isinstance(measure, FrechetMeasure)
            if not measure.two_sided or (not by_moments and self.file.rows is None):
                raise ZooError(
                    f"{self.label} holds saved statistics: {measure.title} needs "
                    + ("the features too (--keep-features)" if measure.two_sided else "a model or a folder")
                )
            self._check_origin(measure)

    def _check_origin(self, measure: Measure) -> None:
        network, info = measure.network, self.statistics.info
        assert network is not None  # all that compare sets have one
        checksum = info.get("checksum")
        if self.statistics.num_features != network.num_features:
            raise ZooError(
                f"{self.label} has {self.statistics.num_features} features and {measure.title} takes "
                f"{network.num_features} ({network.name}): these are statistics of another network"
            )
        if checksum != network.checksum and (checksum is not None or not network.comparable):
            raise ZooError(
                f"{self.label} was made with {info.get('network', 'released weights')}, not with {network.name}: "
                "their features cannot be compared"
            )
        made = {"ddof": self.statistics.ddof, **info.get("protocol", {})}
        for name in measure.decisive if isinstance(measure, FrechetMeasure) else info.get("protocol", {}):
            used = getattr(measure.protocol, name, None)
            if name in made and made[name] != used:
                raise ZooError(
                    f"{self.label} was made with {name} {made[name]}, this evaluation has {used}: make the statistics "
                    f"again or set {name}"
                )


def source_of(
    given: Input,
    device: torch.device,
    workers: int,
    sampling: Mapping[str, object],
) -> Source | SavedStatistics:
    """The source that serves what was given for a side.

    Args:
        given: see :data:`Input`.
        device: where a model runs.
        workers: processes or threads that read files.
        sampling: further arguments of a model's ``sample``.

    Raises:
        ZooError: if it is nothing that can be measured.
    """
    if isinstance(given, FeatureStatistics):
        return SavedStatistics("saved statistics", StatisticsFile(given))
    if isinstance(given, nn.Module):
        return ModelSource(given, type(given).__name__, sampling)
    if not isinstance(given, str | Path):
        return ClipSource(given)
    path = Path(given)
    if path.suffix == ".npz" and path.is_file() and not _is_clip(path):
        return SavedStatistics(path.name, StatisticsFile.load(path))
    if path.suffix == ".pkl" and path.is_file():
        return SavedStatistics(path.name, StatisticsFile(stylegan_statistics.convert(read_checkpoint(path))))
    if path.is_dir() and MultiviewFolderSource.matches(path):
        return MultiviewFolderSource(path, workers)
    if path.exists() and not _is_model(path):
        return FootageSource(path, workers)
    return _from_hub(str(given), device, sampling)


def camera_tracks(
    cameras: Sequence[Camera] | None, real: Source | SavedStatistics | None, protocol: Protocol
) -> Sequence[Camera]:
    """Camera tracks for a model's clips, by the protocol's rule; none leaves the cameras to the model."""
    if cameras is not None or protocol.cameras == "own":
        return cameras or ()
    tracks = real.camera_tracks() if isinstance(real, FootageSource | ClipSource) else []
    long_enough = [track for track in tracks if len(track) >= protocol.span]
    if protocol.cameras == "real" and not long_enough:
        raise ZooError(
            f"protocol {protocol.name} moves a model's clips along the cameras of real clips, and the real side has "
            "none: put NAME.json beside each video, give cameras, or override cameras=own"
        )
    return long_enough


def _from_hub(name: str, device: torch.device, sampling: Mapping[str, object]) -> Source | SavedStatistics:
    if not Path(name).exists():
        try:
            entry = get_entry(name)
        except UnknownEntryError as error:
            raise UnknownEntryError(f"{name} is neither a file or folder nor a known entry ({error})") from error
        if entry.task == "statistics":
            return SavedStatistics(name, StatisticsFile.load(fetch(entry) / STATISTICS), published=True)
    return ModelSource(load(name, device=device), Path(name).name, sampling)


def _is_clip(path: Path) -> bool:
    """Whether an .npz is a clip that was saved, not statistics."""
    return zipfile.is_zipfile(path) and "frames.npy" in zipfile.ZipFile(path).namelist()


def _is_model(path: Path) -> bool:
    return path.suffix == ".ckpt" or is_model_folder(path) or (path / LAST_CHECKPOINT).is_file()
