"""``zoo animate``: a photo that moves as a driving video does."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from portraitzoo.cli.device import add_device_options, load_model
from portraitzoo.cli.families import add_family_options, check_verb, options_for
from portraitzoo.cli.options import parser
from portraitzoo.cli.progress import progress
from portraitzoo.cli.saving import save_clip
from portraitzoo.rendering.camera_files import load_cameras

OWN = ("name", "out", "all", "shape", "cameras", "device", "dtype", "json")


def animate(arguments: list[str]) -> None:
    """Run ``zoo animate``: one clip, or with ``--all`` a folder of every photo with every driving picture."""
    options = parser("animate", "Move a photo as a driving video does: one clip, or with --all every pair of pictures.")
    options.add_argument("name", metavar="NAME", help="entry of the index (`zoo list`), or a folder or .ckpt of a run")
    options.add_argument(
        "--out",
        type=Path,
        help="clip.mp4, sheet.png (contact sheet), clip.npz (everything) or a folder of PNG frames; with --all the "
        "folder of the pictures (default: NAME.mp4, or the folder NAME)",
    )
    options.add_argument("--all", action="store_true", help="every photo with every driving picture, side by side")
    options.add_argument("--shape", action="store_true", help="also write the surface of each frame as .ply")
    options.add_argument("--cameras", type=Path, help="camera file (JSON), one camera per frame, for --trajectory")
    options.add_argument("--json", action="store_true", help="print what was written as JSON")
    add_device_options(options)
    add_family_options(options, "animate", skip=("shapes", "on_frame", "memory_gb"))
    chosen = options.parse_args(arguments)

    if chosen.cameras is not None and hasattr(chosen, "trajectory"):
        options.error("give --cameras or --trajectory, not both")
    verb = "animate_all" if chosen.all else "animate"
    check_verb(chosen.name, "animate")
    model = load_model(chosen)
    options_for(model, "animate", chosen, OWN)  # a family that cannot animate is told so, whatever else is missing
    keywords = options_for(model, verb, chosen, OWN)
    if chosen.cameras is not None:
        keywords["trajectory"] = load_cameras(chosen.cameras, None)
    (_all if chosen.all else _one)(model, chosen, keywords)


def _one(model: Any, chosen: argparse.Namespace, keywords: dict[str, Any]) -> None:
    out = chosen.out or Path(f"{Path(chosen.name).stem}.mp4")
    shapes = out.with_name(f"{out.stem}-shapes")
    started = time.perf_counter()
    if chosen.shape:
        keywords["shapes"] = shapes
    with progress("frames", None) as advance:
        clip = model.animate(**keywords, on_frame=advance)
    files = [*save_clip(clip, out), *([shapes] if chosen.shape else [])]
    seconds = time.perf_counter() - started
    if chosen.json:
        print(json.dumps({"files": [str(file) for file in files], "frames": len(clip), "seconds": round(seconds, 3)}))
    else:
        print(f"{', '.join(map(str, files))}: {len(clip)} frames in {seconds:.1f} s")


def _all(model: Any, chosen: argparse.Namespace, keywords: dict[str, Any]) -> None:
    out = chosen.out or Path(Path(chosen.name).stem)
    started = time.perf_counter()
    with progress("pictures", None) as advance:
        written = model.animate_all(out=out, shape=chosen.shape, **keywords, on_frame=advance)
    seconds = time.perf_counter() - started
    if chosen.json:
        print(json.dumps({"folder": str(out), "written": len(written), "seconds": round(seconds, 3)}))
    else:
        print(f"{out}: {len(written)} pictures in {seconds:.1f} s")
