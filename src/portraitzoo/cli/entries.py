"""``zoo list``, ``zoo info`` and ``zoo download``: the index and what it points to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from portraitzoo.cli.options import parser
from portraitzoo.hub.index import Entry, Origin, get_entry, list_models


def list_entries(arguments: list[str]) -> None:
    """Run ``zoo list``: one line per entry."""
    options = parser("list", "List the entries of the index.")
    options.add_argument("family", nargs="?", help="only this family (pv3d, metrics, ...)")
    options.add_argument("--json", action="store_true", help="print everything that the index knows as JSON")
    chosen = options.parse_args(arguments)
    entries = list_models(chosen.family)
    if chosen.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return
    rows = [(entry.name, entry.family, entry.task, _where(entry), entry.licence) for entry in entries]
    print(_columns([("NAME", "FAMILY", "TASK", "WEIGHTS", "LICENCE"), *rows]))


def info(arguments: list[str]) -> None:
    """Run ``zoo info``: every field of one entry."""
    options = parser("info", "Show everything that the index knows about one entry.")
    options.add_argument("name", metavar="NAME", help="entry of the index (`zoo list`)")
    options.add_argument("--json", action="store_true", help="print it as JSON")
    chosen = options.parse_args(arguments)
    entry = get_entry(chosen.name)
    if chosen.json:
        print(json.dumps(dataclasses.asdict(entry), indent=2))
        return
    facts = [
        ("name", entry.name),
        ("family", entry.family),
        ("task", entry.task),
        ("about", entry.description),
        ("class", entry.cls or "none (data, not a network)"),
        *(("config", f"{key} = {value}") for key, value in entry.config.items()),
        ("licence", entry.licence),
        ("", entry.licence_url),
        *(("weights", _described(origin)) for origin in entry.origins),
        *(("result", f"{r.metric} {r.value:g} on {r.dataset} ({r.source})") for r in entry.published),
        ("paper", entry.paper or ""),
        ("notes", entry.notes or ""),
    ]
    print("\n".join(f"{label:<9}{value}" for label, value in facts if value))


def download(arguments: list[str]) -> None:
    """Run ``zoo download``: fetch, check and convert weights now."""
    options = parser("download", "Fetch weights, check and convert them, so that they can be used offline.")
    options.add_argument("names", metavar="NAME", nargs="+", help="entries of the index (`zoo list`)")
    options.add_argument("--file", type=Path, help="take this file, which you have, instead of downloading it")
    options.add_argument("--json", action="store_true", help="print name and folder as JSON")
    chosen = options.parse_args(arguments)
    entries = [get_entry(name) for name in chosen.names]
    if chosen.file is not None and len(entries) != 1:
        options.error("--file goes with one NAME")

    from portraitzoo.cli.progress import stages
    from portraitzoo.hub.download import fetch, import_file

    with stages() as advance:
        if chosen.file is not None:
            folders = {entries[0].name: str(import_file(entries[0], chosen.file))}
        else:
            folders = {entry.name: str(fetch(entry, progress=advance)) for entry in entries}
    if chosen.json:
        print(json.dumps(folders, indent=2))
    else:
        print(_columns(list(folders.items())))


def _where(entry: Entry) -> str:
    if entry.embedded:
        return "included"
    kinds = {"hub": "Hub", "url": "download", "drive": "Google Drive", "manual": "by hand"}
    return kinds[next(origin.kind for origin in entry.origins if origin.kind != "embedded")]


def _described(origin: Origin) -> str:
    size = f", {origin.size / 2**20:.1f} MiB" if origin.size else ""
    digest = f", sha256 {origin.sha256[:16]}" if origin.sha256 else ""
    return f"{origin.address} ({origin.kind}, {origin.format}{size}{digest})"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
