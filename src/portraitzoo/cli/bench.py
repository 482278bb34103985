"""``zoo bench``: where a model's time goes, stage by stage, and how that compares with the original."""

from __future__ import annotations

import dataclasses
import importlib
import json

from torch import nn

from portraitzoo.cli.families import model_class
from portraitzoo.cli.measurements import Measurement, benchmark_of, measure
from portraitzoo.cli.options import add_options, given, parser
from portraitzoo.errors import ZooError
from portraitzoo.hub.index import list_models
from portraitzoo.hub.loading import load

HEADINGS = ("STAGE", "DTYPE", "BATCH", "SECONDS", "MS/FRAME", "FPS", "PEAK GB", "GFLOP", "OF PEAK", "SPEED-UP", "ERROR")


def bench(arguments: list[str]) -> None:
    """Run ``zoo bench``: a table, or with ``--json`` a list of objects; ``zoo bench eval`` times the evaluation."""
    if arguments[:1] == ["eval"]:
        importlib.import_module("portraitzoo.cli.evaluation_bench").bench_evaluation(arguments[1:])
        return
    options = parser("bench", "Time a model stage by stage: seconds, memory, arithmetic, and the original's speed.")
    options.add_argument("name", metavar="NAME", help="entry of the index, folder or .ckpt; with --official a family")
    options.add_argument("--official", action="store_true", help="the network as published, of family NAME")
    options.add_argument("--random-weights", action="store_true", help="with --official: do not download the weights")
    options.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default: cpu)")
    options.add_argument("--json", action="store_true", help="print a JSON list")
    settings = add_options(options, measure, skip=("model",))
    options.epilog = "`zoo bench eval` times the evaluation's feature extraction beside other programs."
    chosen = options.parse_args(arguments)
    if chosen.random_weights and not chosen.official:
        options.error("--random-weights goes with --official")

    model = _model(chosen.name, chosen.official, chosen.random_weights, chosen.device)
    found = []
    for measurement in measure(model, **given(chosen, settings)):
        found.append(measurement)
        if not chosen.json:
            if len(found) == 1:
                print(_row(HEADINGS))
            print(_row(_cells(measurement)), flush=True)
    if chosen.json:
        print(json.dumps([dataclasses.asdict(measurement) for measurement in found], indent=2))
    else:
        last = found[-1]
        print(f"{last.device}, {last.threads} threads, calibration {last.calibration_seconds:.3f} s")


def _model(name: str, official: bool, random_weights: bool, device: str) -> nn.Module:
    if not official:
        return load(name, device=device)
    published = [entry for entry in list_models(name) if entry.cls is not None and not entry.embedded]
    if not published:
        raise ZooError(f"the index has no published network of family {name}")
    if random_weights:
        return benchmark_of(model_class(str(published[0].cls))).official().to(device)
    return load(published[0].name, device=device)


def _cells(found: Measurement) -> tuple[str, ...]:
    return (
        found.what,
        found.dtype + ("+compile" if found.compiled else ""),
        str(found.batch),
        f"{found.seconds:.4f}",
        f"{found.ms_per_frame:.1f}",
        f"{found.frames_per_second:.2f}",
        f"{found.peak_memory_gb:.2f}",
        f"{found.gflop:.1f}" if found.gflop else "",
        f"{found.share_of_peak:.0%}" if found.gflop else "",
        f"{found.speedup:.2f}x" if found.speedup else "",
        f"{found.error:.1e}" if found.error is not None else "",
    )


def _row(cells: tuple[str, ...]) -> str:
    return f"{cells[0]:<17}{cells[1]:<17}" + "".join(f"{cell:>10}" for cell in cells[2:])
