"""Making reference statistics: one side measured once, for many evaluations."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from portraitzoo.errors import ZooError
from portraitzoo.hub.loading import best_device
from portraitzoo.hub.publishing import push
from portraitzoo.metrics.evaluation import chosen_protocol, now, versions
from portraitzoo.metrics.extraction import Extraction
from portraitzoo.metrics.feature_cache import default_cache
from portraitzoo.metrics.features import Weights
from portraitzoo.metrics.inputs import Input, SavedStatistics, source_of
from portraitzoo.metrics.measures import FrechetMeasure, measures_named, prepared
from portraitzoo.metrics.passes import Progress
from portraitzoo.metrics.processes import Processes
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.statistics_files import StatisticsFile, from_gathered


def make(
    source: Input,
    out: str | Path,
    *,
    metric: str = "fvd",
    protocol: str | Protocol = "quick",
    overrides: Mapping[str, Any] | None = None,
    side: Literal["real", "generated"] = "real",
    num_clips: int | None = None,
    features: Weights = "official",
    keep_features: bool = False,
    licence: str | None = None,
    sampling: Mapping[str, object] | None = None,
    batch_size: int = 4,
    workers: int = 2,
    device: str | torch.device | None = None,
    cache: str | Path | None = None,
    use_cache: bool = True,
    strict: bool = False,
    progress: Progress | None = None,
    push_to: str | None = None,
    private: bool = False,
) -> StatisticsFile:
    """Measure one side and write its statistics to a file that can stand for it in ``evaluate`` and ``zoo eval``.

    Args:
        source: model, folder of videos or images, or clips; see :func:`portraitzoo.metrics.evaluation.evaluate`.
        out: ``NAME.npz`` to write.
        metric: ``fvd`` or ``fid``; with the features kept any metric that compares two sets (KID shares FID's file).
        protocol: a published protocol's name, or one of your own.
        overrides: protocol fields to change.
        side: which side's rules of the protocol are followed.
        num_clips: clips, instead of the protocol's number.
        features: ``official`` networks, or ``random`` weights, comparable with nothing else.
        keep_features: keep every feature row, for metrics that need more than mean and covariance.
        licence: under which terms the file may be shared; it is noted in it.
        sampling: further arguments of a model's ``sample``.
        batch_size: clips to a forward pass.
        workers: processes or threads that decode ahead.
        device: where networks run; the best one here by default.
        cache: folder of cached features; the user's cache by default.
        use_cache: False keeps nothing else on disk.
        strict: unreadable items are errors instead of being counted.
        progress: called with (what, done, total) as items are finished.
        push_to: ``owner/name`` of a Hub repository to which the file is pushed with a page that describes it.
        private: make that repository private.

    Returns:
        What the file holds.

    Raises:
        ZooError: for a metric that compares no sets, a source that cannot serve it or has too few items, a file that
            cannot be written, a push without a licence or that the Hub refuses.
    """
    chosen = chosen_protocol(protocol, overrides, num_clips, None)
    (kind,) = measures_named([metric])
    if not kind.two_sided:
        raise ZooError(f"{kind.title} compares no sets: statistics are made for fvd, fid, kid, precision ...")
    if not issubclass(kind, FrechetMeasure) and not keep_features:
        raise ZooError(f"{kind.title} needs more than mean and covariance: add keep_features (--keep-features)")
    if Path(out).suffix != ".npz":
        raise ZooError(f"{out}: a file of statistics is named NAME.npz")
    if push_to and not licence:
        raise ZooError("under which licence may others use these statistics? give one, e.g. --licence CC-BY-4.0")
    where = torch.device(device) if device is not None else best_device()
    given = source_of(source, where, workers, sampling or {})
    if isinstance(given, SavedStatistics):
        raise ZooError(f"{given.label} holds statistics already")
    extraction = Extraction(
        chosen.of_side(side),
        batch_size=batch_size,
        workers=workers,
        cache=(Path(cache) if cache is not None else default_cache()) if use_cache else None,
        strict=strict,
        progress=progress or (lambda what, done, total: None),
        enough=chosen.fewer or chosen.of_side(side).fewer or num_clips is not None,
        recoded=side == "real",
    )
    extraction.check(given, [kind])
    (measure,) = prepared([kind], chosen, features, where, batch_size)
    if isinstance(measure, FrechetMeasure) and keep_features:
        measure.kept_rows = math.inf
    measured = extraction.run(given, [measure])
    network = measure.network
    info = {
        "metric": metric,
        "network": network.name if network else None,
        "checksum": network.checksum if network else None,
        "comparable": bool(network and network.comparable),
        "protocol_name": chosen.name + (" (modified)" if chosen.modified() else ""),
        "unit": "images" if measure.stage_type.need == "images" else "clips",
        "data": {
            "label": measured.label,
            "kind": measured.kind,
            "fingerprint": measured.fingerprint,
            "used": dict(measured.used),
            "left_out": len(measured.broken) + len(measured.short),
        },
        "licence": licence or "not stated",
        "versions": versions(),
        "created": now(),
    }
    made = from_gathered(measured.gathered[measure.name], info, keep_features)
    if Processes.current().rank == 0:
        path = made.save(out)
        if push_to:
            _push(path, made, push_to, private)
    return made


def _push(path: Path, made: StatisticsFile, repo: str, private: bool) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(path, folder / path.name)
        (folder / "README.md").write_text(page(path.name, made), encoding="utf-8")
        return push(folder, repo, private)


def page(name: str, made: StatisticsFile) -> str:
    """The repository page of a file of statistics: what it is, and how to measure against it."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in made.describe().items())
    return (
        f"---\nlibrary_name: portraitzoo\ntags: [evaluation, feature-statistics]\n---\n\n# {name}\n\n"
        f"Reference statistics for {made.info['metric'].upper()}. Measure against them with\n\n"
        f"    zoo eval MODEL --data {name} --metrics {made.info['metric']}\n\n| | |\n|---|---|\n{rows}\n"
    )
