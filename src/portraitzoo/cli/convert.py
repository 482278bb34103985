"""``zoo convert``: an official checkpoint becomes a folder in our format."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from portraitzoo.cli.options import parser
from portraitzoo.hub import converting


def convert(arguments: list[str]) -> None:
    """Run ``zoo convert``; nothing in the file is executed."""
    options = parser("convert", "Convert an official checkpoint, without running anything in it.")
    options.add_argument("family", metavar="FAMILY", help="pv3d, ...: whose checkpoint it is")
    options.add_argument("file", metavar="FILE", type=Path, help="official checkpoint (.ckpt, .pth, .pkl, .tar ...)")
    options.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    options.add_argument("--json", action="store_true", help="print what was converted and dropped as JSON")
    chosen = options.parse_args(arguments)
    report = converting.convert(chosen.family, chosen.file, chosen.out)
    if chosen.json:
        print(json.dumps(dataclasses.asdict(report), indent=2, default=str))
    else:
        print(report)
