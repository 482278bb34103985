"""``zoo preprocess``: training sets in a family's own format on disk."""

from __future__ import annotations

from pathlib import Path

from portraitzoo.cli.options import add_options, given, parser
from portraitzoo.cli.progress import progress
from portraitzoo.preprocess.synthetic import synthesise


def preprocess(arguments: list[str]) -> None:
    """Run ``zoo preprocess synthetic``: clips of random talking heads with known cameras."""
    options = parser("preprocess", "Make a training set: talking heads of random people in front of known cameras.")
    options.add_argument("what", choices=("synthetic",), help="synthetic: heads of the anny studio (extra synthetic)")
    options.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the data set")
    derived = add_options(options, synthesise, skip=("out", "progress"))
    chosen = options.parse_args(arguments)
    keywords = given(chosen, {"out", *derived})
    with progress("clips", keywords.get("clips", 512)) as advance:
        folder = synthesise(**keywords, progress=lambda done, total: advance(done))
    print(folder)
