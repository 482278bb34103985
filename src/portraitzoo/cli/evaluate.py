"""``zoo eval``: generated portraits measured, against real ones where the metric compares two sets."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import torch.distributed as dist

from portraitzoo.cli.cameras import camera_tracks
from portraitzoo.cli.options import add_options, given, json_object, parser
from portraitzoo.cli.progress import stages
from portraitzoo.cli.protocols import add_fields, list_protocols
from portraitzoo.metrics import evaluation
from portraitzoo.metrics.processes import launched
from portraitzoo.metrics.report import counts, number, spread
from portraitzoo.metrics.runs import evaluate_runs

SUBCOMMANDS = {"diff": "evaluate_diff:diff", "stats": "evaluate_stats:stats"}
"""First word -> module and function; a folder of that name is written ``./diff``."""


def evaluate(arguments: list[str]) -> None:
    """Run ``zoo eval``."""
    if arguments and arguments[0] in SUBCOMMANDS:
        module, _, function = SUBCOMMANDS[arguments[0]].partition(":")
        getattr(importlib.import_module(f"portraitzoo.cli.{module}"), function)(arguments[1:])
        return
    if "--list-protocols" in arguments:
        list_protocols([word for word in arguments if word != "--list-protocols"])
        return
    options = parser(
        "eval", "Measure generated portraits. Each side: a model, a folder of videos, images or statistics."
    )
    options.epilog = (
        "`zoo eval diff A B` compares two reports; `zoo eval stats make|show|compare` are reference statistics as "
        "files, to be given to --data."
    )
    options.add_argument("generated", metavar="NAME", help="what is judged: entry, run, folder, file, zip or LMDB")
    options.add_argument("--data", dest="real", metavar="PATH", help="what it is compared with: the same choice")
    options.add_argument("--out", type=Path, metavar="DIR", help="folder for report.json, report.md and report.html")
    options.add_argument("--cameras", type=Path, metavar="PATH", help="camera files that a model's clips follow")
    options.add_argument("--sampling", type=json_object, metavar="JSON", help="further options of the model's sample")
    options.add_argument("--num-runs", type=int, default=1, metavar="N", help="repeat with other seeds: mean and std")
    options.add_argument("--json", action="store_true", help="print the report as JSON")
    options.add_argument("--list-protocols", action="store_true", help="show the protocols that have a name")
    own = ("generated", "real", "out", "cameras", "sampling", "overrides")
    derived = add_options(options, evaluation.evaluate, skip=(*own, "progress"))
    options.add_argument("--devices", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    options.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    overrides = add_fields(options)
    chosen = options.parse_args(arguments)
    keywords = given(chosen, {*own, *derived})
    keywords["cameras"] = camera_tracks(chosen.cameras) if chosen.cameras else None
    keywords["overrides"] = overrides(chosen)
    with launched(chosen.devices, chosen.nodes, keywords.get("device")) as device, stages() as advance:
        if device is not None:
            keywords["device"] = device
        report = evaluate_runs(**keywords, num_runs=chosen.num_runs, progress=advance)
        leads = not dist.is_initialized() or dist.get_rank() == 0
    if not leads:
        return
    if chosen.json:
        print(json.dumps(report.to_dict(), indent=1))
        return
    for result in report.results:
        told = "; ".join(filter(None, (counts(result), spread(result), *report.notes(result))))
        print(f"{result.title:<20}{number(result):>12}   {told}")
    for name, (published, used) in report.protocol.modified().items():
        print(f"modified: {name} is {used}, protocol {report.protocol.name} has {published}")
    for warning in report.warnings:
        print(f"note: {warning}")
    if chosen.out:
        print(chosen.out / "report.html")
