"""One function that measures generated portraits: any source, any protocol, cached, resumable, over many processes."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import nn

from portraitzoo.errors import UnknownEntryError, ZooError
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.converting import STATISTICS
from portraitzoo.hub.download import fetch
from portraitzoo.hub.folders import is_model_folder
from portraitzoo.hub.index import get_entry
from portraitzoo.hub.loading import LAST_CHECKPOINT, best_device, load
from portraitzoo.media.clip import Clip
from portraitzoo.metrics import stylegan_statistics
from portraitzoo.metrics.extraction import Extraction, Progress
from portraitzoo.metrics.extremes import illustrated
from portraitzoo.metrics.feature_cache import default_cache
from portraitzoo.metrics.features import Weights, tensor_checksum
from portraitzoo.metrics.folders import FolderSource, MultiviewFolderSource
from portraitzoo.metrics.frechet import FeatureStatistics
from portraitzoo.metrics.measures import FrechetMeasure, Measure, measures_named, prepared
from portraitzoo.metrics.processes import Processes
from portraitzoo.metrics.protocols import Protocol, get_protocol
from portraitzoo.metrics.report import Report
from portraitzoo.metrics.results import Extreme, Gathered, Result
from portraitzoo.metrics.side import Side
from portraitzoo.metrics.sources import ClipSource, ModelSource, Source
from portraitzoo.rendering.cameras import Camera

Input = str | Path | nn.Module | FeatureStatistics | Sequence[Clip]
"""A side: model entry or run, loaded model, folder or file of videos, images or statistics, or clips in memory."""


@dataclass(frozen=True)
class SavedStatistics:
    """A side of which only mean and covariance are known; ``published`` ones are vouched for by the index."""

    label: str
    statistics: FeatureStatistics
    published: bool = False

    @property
    def detail(self) -> str:
        """What must be taken on trust."""
        known = self.published or "checksum" in self.statistics.info
        return "" if known else "the file does not say by which network and protocol it was made"

    def check(self, measures: Sequence[Measure]) -> None:
        """Raise ZooError unless all measures can take these statistics for a side."""
        for measure in measures:
            if not isinstance(measure, FrechetMeasure):
                raise ZooError(f"{self.label} holds saved statistics: {measure.title} needs a model or a folder")
            measure.check(self.label, self.statistics)


def evaluate(
    generated: Input,
    real: Input | None = None,
    *,
    metrics: Sequence[str] | str = ("fvd",),
    num_clips: int | None = None,
    protocol: str | Protocol = "quick",
    overrides: Mapping[str, Any] | None = None,
    features: Weights = "official",
    sampling: Mapping[str, object] | None = None,
    cameras: Sequence[Camera] | None = None,
    seed: int | None = None,
    batch_size: int = 4,
    workers: int = 2,
    device: str | torch.device | None = None,
    cache: str | Path | None = None,
    use_cache: bool = True,
    strict: bool = False,
    progress: Progress | None = None,
    out: str | Path | None = None,
) -> Report:
    """Measure generated portraits, against real ones where the metric compares two sets.

    Each side is one of: the name of an index entry, a run's checkpoint or a folder of ours (drawn from), a loaded
    model, a folder of videos or of frame folders, one video file, a folder of images (FID), a folder in PV3D's
    multi-view layout (identity, Chamfer, warping), clips in memory, or saved statistics (``.npz``, an index entry of
    statistics, or :class:`FeatureStatistics`).

    Inside a ``torch.distributed`` process group every process calls this with the same arguments; each takes its
    share, and all return the same report (write it from one: ``out`` is honoured by rank 0 only).

    Args:
        generated: the side that is judged.
        real: the side it is compared with; identity, Chamfer and warping do without.
        metrics: any of ``fvd``, ``fid``, ``identity``, ``chamfer``, ``warping``; one string may list them with commas.
        num_clips: clips on each side, instead of the protocol's number (and at most so many heads). A
            side with fewer is then taken as it is, with a warning.
        protocol: a published protocol's name, or one of your own.
        overrides: protocol fields to change; the report then says "modified".
        features: ``official`` networks, or ``random`` weights: fixed, offline, and comparable with nothing else.
        sampling: further arguments of the model's ``sample``.
        cameras: camera tracks that the generated clips of a model follow, each at least as long as a clip; a clip's
            seed chooses. Without them the protocol decides between those of the real side and the model's own.
        seed: clip i of a model is drawn with seed + i; overrides the protocol's ``first_seed``.
        batch_size: clips to a forward pass.
        workers: threads that decode ahead.
        device: where networks run; the best one here by default.
        cache: folder of cached features; the user's cache by default.
        use_cache: False keeps nothing on disk.
        strict: unreadable items are errors instead of being counted.
        progress: called with (what, done, total) as items are finished.
        out: folder for ``report.json``, ``report.md`` and ``report.html``.

    Returns:
        The report; ``report.values`` maps metric to number.

    Raises:
        ZooError: in one line, for an unknown metric, protocol or field; a side that cannot serve a metric or has too
            few clips; features that are not finite; statistics of another network or protocol.
        WeightsUnavailableError: if official network weights are not here and cannot be fetched.

    Example:
        >>> report = evaluate("pv3d-tiny", "my_clips/", metrics=("fvd", "fid"), features="random")  # doctest: +SKIP
        >>> report.values["fvd"]  # doctest: +SKIP
    """
    started = time.monotonic()
    chosen = _protocol(protocol, overrides, num_clips, seed)
    classes = measures_named(metrics.split(",") if isinstance(metrics, str) else metrics)
    where = torch.device(device) if device is not None else best_device()
    two_sided = [cls for cls in classes if cls.two_sided]
    if two_sided and real is None:
        raise ZooError(f"{two_sided[0].title} compares two sets: give real videos, a model or saved statistics too")

    theirs = _source(real, where, workers, {}) if two_sided and real is not None else None
    ours = _source(generated, where, workers, sampling or {})
    if isinstance(ours, ModelSource) and two_sided and "trajectory" not in ours.options:
        ours.follow(_tracks(cameras, theirs, chosen))
    extraction = Extraction(
        chosen,
        batch_size=batch_size,
        workers=workers,
        cache=(Path(cache) if cache is not None else default_cache()) if use_cache else None,
        strict=strict,
        enough=chosen.fewer or num_clips is not None,
        progress=progress or (lambda what, done, total: None),
    )
    for source, asked in ((ours, classes), (theirs, two_sided)):
        if source is not None and not isinstance(source, SavedStatistics):
            extraction.check(source, asked)
    measures = prepared(classes, chosen, features, where, batch_size)
    compared = [measure for measure in measures if measure.two_sided]
    for source, taken in ((ours, measures), (theirs, compared)):
        if isinstance(source, SavedStatistics):
            source.check(taken)
    seconds = {"preparation": time.monotonic() - started}

    begun = time.monotonic()
    left = _side(ours, measures, extraction)
    seconds["generated"] = time.monotonic() - begun
    begun = time.monotonic()
    right = None if theirs is None else _side(theirs, compared, extraction)
    seconds["real"] = time.monotonic() - begun
    begun = time.monotonic()
    results = [_result(measure, left, right) for measure in measures]
    if Processes.current().rank == 0:
        for measure, result in zip(measures, results, strict=True):
            result.extremes = _illustrated(measure, result, ours, theirs, extraction)
    seconds["comparison"] = time.monotonic() - begun
    report = Report(
        results=results,
        protocol=chosen,
        generated=left,
        real=right,
        features=features,
        device=_device_name(where),
        processes=Processes.current().size,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        versions=_versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        warnings=_warnings(left, right, chosen, results),
    )
    if out is not None and Processes.current().rank == 0:
        report.save(out)
    return report


def _protocol(
    protocol: str | Protocol, overrides: Mapping[str, Any] | None, num_clips: int | None, seed: int | None
) -> Protocol:
    base = get_protocol(protocol)
    changes = dict(overrides or {})
    if num_clips is not None:
        changes |= {"clips": num_clips, "subjects": min(num_clips, base.subjects)}
    if seed is not None:
        changes["first_seed"] = seed
    return base.override(changes)


def _source(
    given: Input,
    device: torch.device,
    workers: int,
    sampling: Mapping[str, object],
) -> Source | SavedStatistics:
    if isinstance(given, FeatureStatistics):
        return SavedStatistics("saved statistics", given)
    if isinstance(given, nn.Module):
        return ModelSource(given, type(given).__name__, sampling)
    if not isinstance(given, str | Path):
        return ClipSource(given)
    path = Path(given)
    if path.suffix == ".npz" and path.is_file() and not _is_clip(path):
        return SavedStatistics(path.name, FeatureStatistics.load(path))
    if path.suffix == ".pkl" and path.is_file():
        return SavedStatistics(path.name, stylegan_statistics.convert(read_checkpoint(path)))
    if path.is_dir() and MultiviewFolderSource.matches(path):
        return MultiviewFolderSource(path, workers)
    if path.exists() and not _is_model(path):
        return FolderSource(path, workers)
    return _from_hub(str(given), device, sampling)


def _tracks(
    cameras: Sequence[Camera] | None, real: Source | SavedStatistics | None, protocol: Protocol
) -> Sequence[Camera]:
    """Camera tracks for a model's clips, by the protocol's rule; none leaves the cameras to the model."""
    if cameras is not None or protocol.cameras == "own":
        return cameras or ()
    tracks = real.camera_tracks() if isinstance(real, FolderSource | ClipSource) else []
    long_enough = [track for track in tracks if len(track) >= protocol.clip_length]
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
            return SavedStatistics(name, FeatureStatistics.load(fetch(entry) / STATISTICS), published=True)
    return ModelSource(load(name, device=device), Path(name).name, sampling)


def _is_clip(path: Path) -> bool:
    """Whether an .npz is a clip that was saved, not statistics."""
    return zipfile.is_zipfile(path) and "frames.npy" in zipfile.ZipFile(path).namelist()


def _is_model(path: Path) -> bool:
    return path.suffix == ".ckpt" or is_model_folder(path) or (path / LAST_CHECKPOINT).is_file()


def _side(source: Source | SavedStatistics, measures: Sequence[Measure], extraction: Extraction) -> Side:
    if not isinstance(source, SavedStatistics):
        return extraction.run(source, measures)
    statistics = source.statistics
    fingerprint = tensor_checksum({"mean": statistics.mean, "cov": statistics.cov})
    side = Side(source.label, "statistics", fingerprint, source.detail)
    for measure in measures:
        side.gathered[measure.name] = Gathered(statistics)
    return side


def _result(measure: Measure, generated: Side, real: Side | None) -> Result:
    other = real.gathered[measure.name] if real is not None and measure.two_sided else None
    return measure.result(generated.gathered[measure.name], other)


def _illustrated(
    measure: Measure,
    result: Result,
    generated: Source | SavedStatistics,
    real: Source | SavedStatistics | None,
    extraction: Extraction,
) -> list[Extreme]:
    """The worst and the best items with pictures, where the sides have any."""
    if isinstance(generated, SavedStatistics):
        return result.extremes
    ours = partial(extraction.picture, generated, extraction.unit(generated, measure))
    if real is None or isinstance(real, SavedStatistics) or not measure.two_sided:
        return illustrated(result.extremes, ours, None)
    return illustrated(result.extremes, ours, partial(extraction.picture, real, extraction.unit(real, measure)))


def _warnings(generated: Side, real: Side | None, protocol: Protocol, results: Sequence[Result]) -> list[str]:
    warnings = [warning for side in (generated, real) if side is not None for warning in side.warnings(protocol)]
    if real is not None and real.kind == "statistics" and real.detail:
        warnings.append(f"{real.label}: {real.detail}")
    for result in results:
        if result.real is not None and result.real != result.generated:
            warnings.append(
                f"{result.title}: {result.generated} generated and {result.real} real {result.unit}; "
                "published numbers take equal counts or say so"
            )
    return warnings


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("portraitzoo", "torch", "numpy", "av")} | {
        "opencv": cv2.__version__,
        "python": platform.python_version(),
    }
