"""``zoo sample``: clips from seeds."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from torch import nn

from portraitzoo.cli.cameras import camera_tracks
from portraitzoo.cli.device import add_device_options, load_model
from portraitzoo.cli.families import add_family_options, check_verb, options_for
from portraitzoo.cli.options import add_options, given, parser, whole_numbers
from portraitzoo.cli.progress import progress
from portraitzoo.cli.saving import save_clip
from portraitzoo.rendering.camera_files import load_cameras

RENAMED = {"num_frames": "frames"}
OWN = ("name", "out", "seeds", "multiview", "grid", "cameras", "camera_tracks", "device", "dtype", "json")


def sample(arguments: list[str]) -> None:
    """Run ``zoo sample``: one clip, or with ``--seeds`` a folder or a grid of clips that resumes where it stopped."""
    options = parser("sample", "Generate clips: one, or with --seeds a folder of them that resumes where it stopped.")
    options.add_argument("name", metavar="NAME", help="entry of the index (`zoo list`), or a folder or .ckpt of a run")
    options.add_argument(
        "--out",
        type=Path,
        help="clip.mp4, sheet.png (contact sheet), clip.npz (everything) or a folder of PNG frames; with --seeds the "
        "folder of the clips (default: NAME.mp4, or the folder NAME)",
    )
    options.add_argument("--cameras", type=Path, help="camera file (JSON), one camera per frame, for --trajectory")
    options.add_argument("--json", action="store_true", help="print what was written as JSON")
    add_device_options(options)
    many = options.add_argument_group("many clips")
    many.add_argument("--seeds", type=whole_numbers, metavar="A-B,C", help="one clip for each of these seeds")
    many.add_argument("--multiview", action="store_true", help="the four views that identity, Chamfer and warping need")
    many.add_argument("--grid", action="store_true", help="every seed with every motion along every camera path")
    many.add_argument("--camera-tracks", type=Path, help="folder of camera files; each clip follows a part of one")
    for_many = _add_bulk_options(many) if _wants(arguments, "--seeds", "-h", "--help") else set()
    add_family_options(options, "sample", skip=("on_frame", "memory_gb"), rename=RENAMED)
    chosen = options.parse_args(arguments)

    if chosen.seeds is None and (chosen.multiview or chosen.camera_tracks or chosen.grid):
        options.error("--multiview, --grid and --camera-tracks go with --seeds")
    if chosen.grid and (chosen.multiview or chosen.camera_tracks or chosen.cameras or hasattr(chosen, "trajectory")):
        options.error("--grid has camera paths of its own: --trajectories")
    if not chosen.grid and (hasattr(chosen, "trajectories") or hasattr(chosen, "motion_seeds")):
        options.error("--trajectories and --motion-seeds go with --grid")
    if chosen.cameras is not None and hasattr(chosen, "trajectory"):
        options.error("give --cameras or --trajectory, not both")
    check_verb(chosen.name, "multiview" if chosen.multiview else "sample")
    if chosen.seeds is None:
        _one(chosen)
    else:
        _many(chosen, given(chosen, for_many))


def _wants(arguments: list[str], *flags: str) -> bool:
    return any(argument.partition("=")[0] in flags for argument in arguments)


def _add_bulk_options(group: argparse._ArgumentGroup) -> set[str]:
    # Lightning, which runs many clips, takes seconds to import; one clip needs none of it.
    from portraitzoo.methods.bulk import sample_many
    from portraitzoo.methods.bulk_grid import sample_grid

    skip = ("model", "seeds", "out", "camera_tracks", "on_clip", "quality")
    return add_options(group, sample_many, skip=skip) | add_options(group, sample_grid, skip=skip)


def _one(chosen: argparse.Namespace) -> None:
    model = load_model(chosen)
    keywords = _keywords(model, chosen, OWN, "sample")
    out = chosen.out or Path(f"{Path(chosen.name).stem}.mp4")
    started = time.perf_counter()
    with progress("frames", keywords.get("num_frames", 16)) as advance:
        clip = model.sample(**keywords, on_frame=advance)
    files = save_clip(clip, out)
    seconds = time.perf_counter() - started
    if chosen.json:
        print(json.dumps({"files": [str(file) for file in files], "frames": len(clip), "seconds": round(seconds, 3)}))
    else:
        print(f"{', '.join(map(str, files))}: {len(clip)} frames in {seconds:.1f} s")


def _many(chosen: argparse.Namespace, bulk: dict[str, Any]) -> None:
    from portraitzoo.methods.bulk import multiview_many, sample_many

    model = load_model(chosen)
    out = chosen.out or Path(Path(chosen.name).stem)
    if chosen.grid:
        _grid(model, chosen, out, bulk)
        return
    verb = "multiview" if chosen.multiview else "sample"
    keywords = _keywords(model, chosen, (*OWN, *bulk), verb)
    with progress("clips", len(chosen.seeds)) as advance:
        if chosen.multiview:
            for name in ("names", "suffix"):
                bulk.pop(name, None)
            summary = multiview_many(model, chosen.seeds, out, on_clip=advance, **bulk, **keywords)
        else:
            tracks = camera_tracks(chosen.camera_tracks) if chosen.camera_tracks else None
            summary = sample_many(model, chosen.seeds, out, on_clip=advance, camera_tracks=tracks, **bulk, **keywords)
    if chosen.json:
        written = {"folder": str(summary.folder), "written": summary.written, "kept": summary.kept}
        print(json.dumps(written | {"seconds": round(summary.seconds, 3)}))
    else:
        kept = f", {summary.kept} were there already" if summary.kept else ""
        print(f"{summary.folder}: {summary.written} clips in {summary.seconds:.1f} s{kept}")


def _grid(model: nn.Module, chosen: argparse.Namespace, out: Path, bulk: dict[str, Any]) -> None:
    from portraitzoo.methods.bulk_grid import GRID_TRAJECTORIES, sample_grid

    keywords = _keywords(model, chosen, (*OWN, *bulk))
    paths = len(bulk.get("trajectories", GRID_TRAJECTORIES)) * max(1, len(bulk.get("motion_seeds", ())))
    with progress("clips", paths * len(chosen.seeds)) as advance:
        grid = sample_grid(model, chosen.seeds, out, on_clip=advance, **bulk, **keywords)
    if chosen.json:
        sheets = [str(sheet) for sheet in grid.sheets]
        print(json.dumps({"folder": str(grid.folder), "sheets": sheets, "clips": grid.clips, "written": grid.written}))
    else:
        print(f"{grid.folder}: {grid.clips} clips, {grid.written} of them new; {', '.join(map(str, grid.sheets))}")


def _keywords(
    model: nn.Module, chosen: argparse.Namespace, own: tuple[str, ...], verb: str = "sample"
) -> dict[str, Any]:
    keywords = options_for(model, verb, chosen, own)
    if chosen.cameras is not None:
        keywords["trajectory"] = load_cameras(chosen.cameras, keywords.get("num_frames"))
        keywords.setdefault("num_frames", len(keywords["trajectory"]))
    return keywords
