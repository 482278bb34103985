"""``zoo sample``: clips from seeds."""

from __future__ import annotations

import json
import time
from pathlib import Path

from portraitzoo.cli.device import add_device_options
from portraitzoo.cli.families import add_family_options, options_for
from portraitzoo.cli.options import parser
from portraitzoo.cli.progress import progress
from portraitzoo.hub.loading import load

OWN = ("name", "out", "seeds", "cameras", "device", "dtype", "json")


def sample(arguments: list[str]) -> None:
    """Run ``zoo sample``: one clip, or with ``--seeds`` a folder of clips that resumes where it stopped."""
    options = parser("sample", "Generate clips. One clip, or with --seeds FIRST-LAST a folder of them.")
    options.add_argument("name", metavar="NAME", help="entry of the index (`zoo list`), or a folder or .ckpt of a run")
    options.add_argument(
        "--out",
        type=Path,
        help="clip.mp4, sheet.png (contact sheet), clip.npz (everything) or a folder of PNG frames (default: NAME.mp4)",
    )
    options.add_argument(
        "--cameras", type=Path, help="camera file (JSON), one camera per frame, instead of a trajectory"
    )
    options.add_argument("--json", action="store_true", help="print what was written as JSON")
    add_device_options(options)
    add_family_options(options, "sample", skip=("on_frame", "memory_gb"), rename={"num_frames": "frames"})
    chosen = options.parse_args(arguments)

    model = load(chosen.name, device=chosen.device, dtype=chosen.dtype)
    keywords = options_for(model, "sample", chosen, OWN)
    out = chosen.out or Path(f"{Path(chosen.name).stem}.mp4")
    started = time.perf_counter()
    with progress("frames", keywords.get("num_frames", 16)) as advance:
        clip = model.sample(**keywords, on_frame=advance)
    written = clip.save(out)
    seconds = time.perf_counter() - started
    if chosen.json:
        print(json.dumps({"files": [str(written)], "frames": len(clip), "seconds": round(seconds, 3)}))
    else:
        print(f"{written}: {len(clip)} frames in {seconds:.1f} s")
