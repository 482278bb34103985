"""``zoo preprocess``: training sets in a family's own format on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from portraitzoo.cli.options import add_options, given, parser
from portraitzoo.cli.progress import stages
from portraitzoo.preprocess.frames import archive_frames, extract_frames, read_speed
from portraitzoo.preprocess.landmark_fits import fit_portraits
from portraitzoo.preprocess.portrait_sets import Packed, pack_ffhq, pack_vfhq
from portraitzoo.preprocess.portraits import PreparedPortraits, prepare_portraits
from portraitzoo.preprocess.synthetic import synthesise

WRITERS: dict[str, tuple[Callable[..., Path | Packed | PreparedPortraits], str, str]] = {
    "synthetic": (synthesise, "clips", "clips of random talking heads with known cameras (extra synthetic)"),
    "frames": (extract_frames, "videos", "videos to folders of frames, cropped and resized (threedvidgen)"),
    "portraits": (prepare_portraits, "pictures", "photos and videos to prepared faces (portrait4d, genhead)"),
    "fit": (fit_portraits, "faces", "prepared faces: FLAME fitted to their landmarks (portrait4d, genhead)"),
    "ffhq": (pack_ffhq, "photos", "prepared photos to the LMDB that GenHead trains on (extra lmdb)"),
    "vfhq": (pack_vfhq, "clips", "prepared clips to the LMDB that Portrait4D-v2 trains on (extra lmdb)"),
    "archive": (archive_frames, "frames", "folders of frames to one .zip that loads fast (threedvidgen)"),
}
"""What is made: the function, what it counts, and what it does."""

SPEED = "images per second that one loading process reads (threedvidgen)"


def preprocess(arguments: list[str]) -> None:
    """Run ``zoo preprocess KIND``: print the folder or file that was made, or a table of reading speeds."""
    options = parser("preprocess", "Make a training set, or see how fast one loads.")
    kinds = options.add_subparsers(dest="kind", metavar="KIND", required=True)
    for kind, (function, _, summary) in WRITERS.items():
        writer = kinds.add_parser(kind, help=summary, description=f"{summary}.", allow_abbrev=False)
        writer.set_defaults(names=add_options(writer, function, skip=("progress", "tracker", "parser")))
    speed = kinds.add_parser("read-speed", help=SPEED, description=f"{SPEED}.", allow_abbrev=False)
    speed.add_argument("--data", metavar="PATH,...", required=True, help="folders of frames, of videos, or archives")
    speed.add_argument("--json", action="store_true", help="print a JSON list")
    speed.set_defaults(names=add_options(speed, read_speed, skip=("data",)))
    chosen = options.parse_args(arguments)
    keywords = given(chosen, chosen.names)
    if chosen.kind in WRITERS:
        function, counted, _ = WRITERS[chosen.kind]
        with stages() as report:
            made = function(**keywords, progress=partial(report, counted))
        print(made)
        if isinstance(made, Packed | PreparedPortraits) and made.left_out:
            print(made.omissions(), file=sys.stderr)
        return
    rows = [{"data": path, "images_per_second": read_speed(path, **keywords)} for path in chosen.data.split(",")]
    if chosen.json:
        print(json.dumps(rows, indent=2))
    else:
        print("\n".join(f"{row['images_per_second']:10.0f} images/s per worker  {row['data']}" for row in rows))
