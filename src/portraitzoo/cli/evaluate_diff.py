"""``zoo eval diff``: two reports side by side."""

from __future__ import annotations

import json
from pathlib import Path

from portraitzoo.cli.options import parser
from portraitzoo.metrics.comparison import compare


def diff(arguments: list[str]) -> None:
    """Run ``zoo eval diff``; reports that may not be compared are an error that names the field that differs."""
    options = parser("eval diff", "Compare two reports of `zoo eval`, if nothing but the generated side differs.")
    options.add_argument("first", metavar="A", type=Path, help="folder of a report, or its report.json")
    options.add_argument("second", metavar="B", type=Path, help="the other one")
    options.add_argument("--json", action="store_true", help="print the comparison as JSON")
    chosen = options.parse_args(arguments)
    comparison = compare(chosen.first, chosen.second)
    print(json.dumps(comparison.to_dict(), indent=1) if chosen.json else comparison)
