"""Protocols on the command line: their fields as options, and ``zoo eval --list-protocols``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

from portraitzoo.cli.options import add_options, given, json_object, parser
from portraitzoo.metrics.protocols import DESCRIBING, Protocol, published_protocols

COLUMNS = ("protocol", "metrics", "counts", "frames", "size", "network", "model's output", "covariance")


def add_fields(options: argparse.ArgumentParser) -> Callable[[argparse.Namespace], dict[str, Any]]:
    """Add ``--overrides`` and one option for every field of a protocol; gives what the command line changed."""
    options.add_argument("--overrides", type=json_object, metavar="JSON", help="fields of the protocol to change")
    changes = options.add_argument_group(
        "fields of the protocol", 'Each replaces what the protocol says, which is then called "modified".'
    )
    rules = ("real", "own", "either")
    changes.add_argument("--camera-rule", choices=rules, help="along what a model's clips move (the field cameras)")
    fields = add_options(changes, Protocol, skip={*DESCRIBING, "cameras", "sampling"}, defaults=False)

    def changed(chosen: argparse.Namespace) -> dict[str, Any]:
        rule = {"cameras": chosen.camera_rule} if chosen.camera_rule else {}
        return {**(chosen.overrides or {}), **given(chosen, fields), **rule}

    return changed


def list_protocols(arguments: list[str]) -> None:
    """Print the table, or with ``--json`` every field of every protocol."""
    options = parser("eval --list-protocols", "The protocols that have a name, and what each of them fixes.")
    options.add_argument("--json", action="store_true", help="print every field as JSON")
    chosen = options.parse_args(arguments)
    protocols = published_protocols()
    if chosen.json:
        print(json.dumps({name: dataclasses.asdict(protocol) for name, protocol in protocols.items()}, indent=1))
        return
    rows = [COLUMNS, *(_cells(protocol) for protocol in protocols.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name, protocol in protocols.items():
        print(f"\n{name}: {protocol.description}")
        print(f"  {', '.join(_fixed(protocol)) or 'all fields as they are by default'}")
        for remark in protocol.remarks:
            print(f"  ({remark})")


def _cells(protocol: Protocol) -> tuple[str, ...]:
    single = protocol.fid_frames == "single"
    ours, theirs = (protocol.of_side(side) for side in ("generated", "real"))
    counts = [_count(side.images if single else side.clips) for side in (ours, theirs)]
    video = any(metric in ("fvd", "video-is") for metric in protocol.metrics)
    size = "as it is" if protocol.size is None else f"{protocol.size} {protocol.resize}"
    stride = f", every {protocol.frame_stride}th" if protocol.frame_stride > 1 else ""
    return (
        protocol.name,
        ",".join(protocol.metrics),
        f"{counts[0]} / {counts[1]}",
        "1" if single else f"{protocol.clip_length}{stride}",
        size if protocol.crop == "none" else f"{size}, {protocol.crop}",
        protocol.video_network if video else f"{protocol.image_network}, {protocol.inception_path}",
        protocol.eight_bit + ("" if protocol.compression == "none" else f", {protocol.compression}"),
        f"n - {protocol.ddof}" if protocol.ddof else "n",
    )


def _count(number: int | None) -> str:
    return "all" if number is None else str(number)


def _fixed(protocol: Protocol) -> Iterator[str]:
    """What the protocol says about fields, where that is not what they are by default."""
    plain = Protocol(protocol.name)
    for field in dataclasses.fields(protocol):
        value = getattr(protocol, field.name)
        if field.name not in DESCRIBING and value != getattr(plain, field.name):
            yield f"{field.name}={value}"
