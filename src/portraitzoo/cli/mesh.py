"""``zoo mesh``: one head as a mesh file."""

from __future__ import annotations

import json
from pathlib import Path

from portraitzoo.cli.device import add_device_options, load_model
from portraitzoo.cli.families import add_family_options, check_verb, options_for
from portraitzoo.cli.options import parser

OWN = ("name", "out", "device", "dtype", "json")


def mesh(arguments: list[str]) -> None:
    """Run ``zoo mesh``: marching cubes with vertex colours, written as .glb, .ply or .obj."""
    options = parser("mesh", "Export the surface of one head, with vertex colours.")
    options.add_argument("name", metavar="NAME", help="entry of the index (`zoo list`), or a folder or .ckpt of a run")
    options.add_argument("--out", type=Path, help="file ending in .glb, .ply or .obj (default: NAME.glb)")
    options.add_argument("--json", action="store_true", help="print what was written as JSON")
    add_device_options(options)
    add_family_options(options, "mesh")
    chosen = options.parse_args(arguments)

    check_verb(chosen.name, "mesh")
    model = load_model(chosen)
    surface = model.mesh(**options_for(model, "mesh", chosen, OWN))
    written = surface.save(chosen.out or Path(f"{Path(chosen.name).stem}.glb"))
    vertices, faces = len(surface.vertices), len(surface.faces)
    if chosen.json:
        print(json.dumps({"file": str(written), "vertices": vertices, "faces": faces}))
    else:
        print(f"{written}: {vertices} vertices, {faces} faces")
