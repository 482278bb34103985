"""``zoo publish``: a run becomes a folder for the Hub."""

from __future__ import annotations

import json
from pathlib import Path

from portraitzoo.cli.options import add_options, given, parser
from portraitzoo.hub import publishing


def publish(arguments: list[str]) -> None:
    """Run ``zoo publish``; nothing is pushed without ``--push-to``."""
    options = parser("publish", "Make a folder for the Hub: weights, config, model card, recipe, samples, metrics.")
    options.add_argument("source", metavar="RUN", help="folder or .ckpt of a run, a folder in our format, or an entry")
    options.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    options.add_argument("--json", action="store_true", help="print folder and address as JSON")
    derived = add_options(options, publishing.publish, skip=("source", "out"))
    chosen = options.parse_args(arguments)
    published = publishing.publish(**given(chosen, {"source", "out", *derived}))
    if chosen.json:
        print(json.dumps({"folder": str(published.folder), "url": published.url}))
    else:
        print(published.url or published.folder)
