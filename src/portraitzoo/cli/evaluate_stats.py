"""``zoo eval stats``: reference statistics as files."""

from __future__ import annotations

import argparse
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from portraitzoo.cli.options import add_options, given, json_object, parser
from portraitzoo.cli.progress import stages
from portraitzoo.cli.protocols import add_fields

USAGE = """usage: zoo eval stats make SOURCE --out FILE.npz ...   measure one side once, for many evaluations
       zoo eval stats show FILE.npz                    what a file says of itself
       zoo eval stats compare A.npz B.npz              Fréchet distance between two files

`zoo eval stats make --help` tells the options."""


def stats(arguments: list[str]) -> None:
    """Run ``zoo eval stats``."""
    actions = {"make": _make, "show": _show, "compare": _compare}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if arguments else 2)
    if arguments[0] not in actions:
        near = get_close_matches(arguments[0], actions, n=1)
        parser("eval stats", "").error(
            f"there is no action {arguments[0]!r}" + (f": did you mean {near[0]}?" if near else f"\n{USAGE}")
        )
    actions[arguments[0]](arguments[1:])


def _make(arguments: list[str]) -> None:
    from portraitzoo.metrics import statistics_making

    options = parser("eval stats make", "Write the statistics of one side to a file that can stand for it.")
    options.add_argument("source", metavar="SOURCE", help="model, folder of videos or images, or video")
    options.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="file to write")
    options.add_argument("--sampling", type=json_object, metavar="JSON", help="further options of the model's sample")
    options.add_argument("--json", action="store_true", help="print what the file says of itself as JSON")
    own = ("source", "out", "sampling", "overrides")
    derived = add_options(options, statistics_making.make, skip=(*own, "progress"))
    overrides = add_fields(options)
    chosen = options.parse_args(arguments)
    keywords = given(chosen, {*own, *derived}) | {"overrides": overrides(chosen)}
    with stages() as advance:
        made = statistics_making.make(**keywords, progress=advance)
    _print(made.describe() | {"file": str(chosen.out)}, chosen)


def _show(arguments: list[str]) -> None:
    from portraitzoo.metrics.statistics_files import StatisticsFile

    options = parser("eval stats show", "What a file of statistics says of itself.")
    options.add_argument("file", type=Path, metavar="FILE.npz", help="file of statistics")
    options.add_argument("--json", action="store_true", help="print it as JSON")
    chosen = options.parse_args(arguments)
    _print(StatisticsFile.load(chosen.file).describe(), chosen)


def _compare(arguments: list[str]) -> None:
    from portraitzoo.metrics.statistics_files import compare

    options = parser("eval stats compare", "Fréchet distance between two files of statistics by one protocol.")
    options.add_argument("first", type=Path, metavar="A.npz", help="file of statistics")
    options.add_argument("second", type=Path, metavar="B.npz", help="the other one")
    options.add_argument("--json", action="store_true", help="print it as JSON")
    chosen = options.parse_args(arguments)
    _print(compare(chosen.first, chosen.second), chosen)


def _print(content: dict[str, Any], chosen: argparse.Namespace) -> None:
    if chosen.json:
        print(json.dumps(content, indent=1))
        return
    notes = content.pop("notes", [])
    width = max(map(len, content))
    for name, value in content.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:<{width}}  {f'{text:.6g}' if isinstance(text, float) else text}")
    for note in notes:
        print(f"note: {note}")
