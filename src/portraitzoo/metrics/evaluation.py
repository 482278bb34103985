"""One function that measures generated portraits: any source, any protocol, cached, resumable, over many processes."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from portraitzoo.errors import ZooError
from portraitzoo.hub.loading import best_device
from portraitzoo.metrics.arrangement import Arrangement
from portraitzoo.metrics.extraction import Extraction
from portraitzoo.metrics.extremes import illustrated
from portraitzoo.metrics.feature_cache import default_cache
from portraitzoo.metrics.features import Weights, tensor_checksum
from portraitzoo.metrics.inputs import Input, SavedStatistics, camera_tracks, source_of
from portraitzoo.metrics.measures import Measure, measures_named, prepared
from portraitzoo.metrics.passes import Progress
from portraitzoo.metrics.processes import Processes
from portraitzoo.metrics.protocols import Protocol, get_protocol
from portraitzoo.metrics.reconstruction import FaceReconstruction, reconstruction_of
from portraitzoo.metrics.report import Report, check_place
from portraitzoo.metrics.results import Extreme, Result
from portraitzoo.metrics.side import Side
from portraitzoo.metrics.sources import ModelSource, Source
from portraitzoo.rendering.cameras import Camera


def evaluate(
    generated: Input,
    real: Input | None = None,
    *,
    references: Input | None = None,
    reconstruction: FaceReconstruction | str | None = None,
    metrics: Sequence[str] | str | None = None,
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
    model, a folder of videos, of frame folders, of ``.npz`` clips or of images, one such file, a zip of videos, frame
    folders or images, an LMDB of Portrait4D or GenHead, a folder in PV3D's multi-view layout (identity, Chamfer,
    warping), clips in memory, or saved statistics (``.npz``, an index entry of statistics, or
    :class:`FeatureStatistics`).

    Inside a ``torch.distributed`` process group (of Lightning's Fabric, say) every process calls this with the same
    arguments and its own device; each takes its share, and all return the same numbers to the last bit, which are also
    those of a single process. Only rank 0 honours ``out``.

    Args:
        generated: the side that is judged.
        real: the side it is compared with; metrics of heads, paths and single clips do without. Paired metrics compare
            files of one name (PSNR, SSIM, LPIPS ...: with the true frames; APD, AED: with the driving video).
        references: pictures of the people whom the generated files of the same name should show, where ``real`` does
            not show them (cross-reenactment): ``id-similarity`` then compares with these.
        reconstruction: reads keypoints, pose and expression off faces, for ``akd``, ``apd`` and ``aed``: an object, or
            the dotted path of its class. Not needed where ``NAME.face.npz`` lies beside each video.
        metrics: any of :data:`~portraitzoo.metrics.measures.MEASURES`; one string may list them with commas. Of two
            sets: ``fvd``, ``fid``, ``kid``, ``precision``, ``recall``, ``density``, ``coverage``. Of pairs: ``psnr``,
            ``psnr-full``, ``psnr-valid``, ``ssim``, ``ms-ssim``, ``l1``, ``lpips-alex``, ``lpips-vgg``,
            ``id-similarity``, ``akd``, ``apd``, ``aed``. Of the generated side alone: ``is``, ``video-is``,
            ``identity``, ``identity-time``, ``chamfer``, ``warping``; of a model ``ppl`` and ``ppl-z``.
        num_clips: clips on each side, instead of the protocol's number (and at most so many heads and paths). A
            side with fewer is then taken as it is, with a warning.
        protocol: a published protocol's name, or one of your own.
        overrides: protocol fields to change; the report then says "modified".
        features: ``official`` networks, or ``random`` weights: fixed, offline, and comparable with nothing else.
        sampling: further arguments of the model's ``sample``.
        cameras: camera tracks that the generated clips of a model follow, each at least as long as a clip; a clip's
            seed chooses. Without them the protocol decides between those of the real side and the model's own.
        seed: clip i of a model is drawn with seed + i; overrides the protocol's ``first_seed``.
        batch_size: clips to a forward pass.
        workers: processes that decode ahead (threads, for few items); 0 decodes between the forward passes.
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
    if out is not None:
        check_place(out)
    chosen = chosen_protocol(protocol, overrides, num_clips, seed)
    classes = measures_named(metrics.split(",") if isinstance(metrics, str) else metrics or chosen.metrics)
    where = torch.device(device) if device is not None else best_device()
    two_sided = [cls for cls in classes if cls.two_sided]
    if two_sided and real is None:
        raise ZooError(f"{two_sided[0].title} compares two sets: give real videos, a model or saved statistics too")

    needed = two_sided or any(cls.paired for cls in classes)
    theirs = source_of(real, where, workers, {}) if needed and real is not None else None
    ours = source_of(generated, where, workers, sampling or {})
    people = source_of(references, where, workers, {}) if references is not None else None
    if isinstance(ours, ModelSource) and two_sided and "trajectory" not in ours.options:
        ours.follow(camera_tracks(cameras, theirs, chosen))
    left_as = Extraction(
        chosen.of_side("generated"),
        batch_size=batch_size,
        workers=workers,
        cache=(Path(cache) if cache is not None else default_cache()) if use_cache else None,
        strict=strict,
        progress=progress or (lambda what, done, total: None),
        enough=chosen.fewer or num_clips is not None,
    )
    reals = chosen.of_side("real")
    right_as = dataclasses.replace(left_as, protocol=reals, enough=left_as.enough or reals.fewer, recoded=True)
    sides = None if isinstance(ours, SavedStatistics) else Arrangement(ours, _items(theirs), _items(people))
    for source, kinds in sides.groups(classes) if sides else []:
        left_as.check(source, kinds)
    if theirs is not None and not isinstance(theirs, SavedStatistics):
        right_as.check(theirs, two_sided)
    measures = prepared(classes, chosen, features, where, batch_size, reconstruction_of(reconstruction))
    compared = [measure for measure in measures if measure.two_sided]
    for given, taken in ((ours, measures), (theirs, compared)):
        if isinstance(given, SavedStatistics):
            given.check(taken)
    seconds = {"preparation": time.monotonic() - started}

    begun = time.monotonic()
    left = _side(ours, [] if sides else measures, left_as)
    for source, asked in sides.groups(measures) if sides else []:
        left_as.run(source, asked, left)
    seconds["generated"] = time.monotonic() - begun
    begun = time.monotonic()
    right = None if theirs is None else _side(theirs, compared, right_as)
    seconds["real"] = time.monotonic() - begun
    begun = time.monotonic()
    results = [_result(measure, left, right) for measure in measures]
    for measure, result in zip(measures, results, strict=True):
        if sides is not None and sides.by_reference(measure) and people is not None:
            result.notes.append(f"against the portraits of {people.label}")
    if Processes.current().rank == 0:
        for measure, result in zip(measures, results, strict=True):
            seen = ours if sides is None else sides.source(measure)
            result.extremes = _illustrated(measure, result, seen, theirs, left_as, right_as)
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
        versions=versions(),
        created=now(),
        warnings=_warnings(left, right, chosen, results),
    )
    if out is not None and Processes.current().rank == 0:
        report.save(out)
    return report


def chosen_protocol(
    protocol: str | Protocol, overrides: Mapping[str, Any] | None, num_clips: int | None, seed: int | None
) -> Protocol:
    """The protocol that an evaluation follows, with what was asked for instead of its own values.

    Raises:
        ZooError: for an unknown protocol or field.
    """
    base = get_protocol(protocol).override(overrides or {})
    changes: dict[str, Any] = {}
    if num_clips is not None:
        changes |= {"clips": num_clips, "subjects": min(num_clips, base.subjects), "paths": min(num_clips, base.paths)}
        changes |= {"images": num_clips} if base.fid_frames == "single" else {}
        changes |= {name: num_clips for name in ("real_clips", "real_images") if getattr(base, name) is not None}
    if seed is not None:
        changes["first_seed"] = seed
    return base.override(changes)


def _side(source: Source | SavedStatistics, measures: Sequence[Measure], extraction: Extraction) -> Side:
    if not isinstance(source, SavedStatistics):
        return extraction.run(source, measures)
    statistics = source.statistics
    fingerprint = tensor_checksum({"mean": statistics.mean, "cov": statistics.cov})
    side = Side(source.label, "statistics", fingerprint, source.detail)
    for measure in measures:
        side.gathered[measure.name] = source.file.gathered()
    return side


def _items(source: Source | SavedStatistics | None) -> Source | None:
    """The side as something that has items."""
    return None if isinstance(source, SavedStatistics) else source


def _result(measure: Measure, generated: Side, real: Side | None) -> Result:
    other = real.gathered[measure.name] if real is not None and measure.two_sided else None
    return measure.result(generated.gathered[measure.name], other)


def _illustrated(
    measure: Measure,
    result: Result,
    generated: Source | SavedStatistics,
    real: Source | SavedStatistics | None,
    left: Extraction,
    right: Extraction,
) -> list[Extreme]:
    """The worst and the best items with pictures, where the sides have any."""
    if isinstance(generated, SavedStatistics):
        return result.extremes
    ours = partial(left.picture, generated, left.unit(generated, measure))
    if real is None or isinstance(real, SavedStatistics) or not measure.two_sided:
        return illustrated(result.extremes, ours, None)
    return illustrated(result.extremes, ours, partial(right.picture, real, right.unit(real, measure)))


def _warnings(generated: Side, real: Side | None, protocol: Protocol, results: Sequence[Result]) -> list[str]:
    warnings = generated.warnings(protocol.of_side("generated"))
    if real is not None:
        warnings += real.warnings(protocol.of_side("real"))
    if real is not None and real.kind == "statistics" and real.detail:
        warnings.append(f"{real.label}: {real.detail}")
    for result in results:
        if result.doubt:
            warnings.append(f"{result.title} in doubt, {result.doubt}: mostly bias, it will fall with more samples")
        if result.real is not None and result.real != result.generated:
            warnings.append(
                f"{result.title}: {result.generated} generated and {result.real} real {result.unit}; "
                "published numbers take equal counts or say so"
            )
    return warnings


def _device_name(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def now() -> str:
    """The time as reports have it: ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of portraitzoo and of the libraries that move numbers."""
    return {name: importlib.metadata.version(name) for name in ("portraitzoo", "torch", "numpy", "av")} | {
        "opencv": cv2.__version__,
        "python": platform.python_version(),
    }
