"""A Portrait4D small enough to animate a photo in a second, and prepared folders for it."""

from dataclasses import fields
from pathlib import Path

import torch

from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.media.images import write_image
from portraitzoo.methods.portrait4d.benchmark import driving_frames, portrait, shape_ellipsoid
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.folders import write_frames
from portraitzoo.methods.portrait4d.model import Portrait4D

WIDTHS = {item.name: 8 for item in fields(Portrait4DConfig) if item.name.endswith(("_width", "_dim", "_tokens"))}
CHANNELS = {item.name: (4,) * len(item.default) for item in fields(Portrait4DConfig) if isinstance(item.default, tuple)}
SINGLE = dict.fromkeys(["global_stem", "global_channels", "plane_channels", "neutral_blocks", "motion_blocks"], 4)
SIZES = {
    "image_resolution": 32,
    "super_resolution_input": 16,
    "super_resolution_channels": (4,),
    "render_resolution": 8,
}
SAMPLES = {"depth_samples": 6, "importance_samples": 6}
HEAD = HeadSizes(vertices=40, faces=60, coarse_vertices=30, coarse_faces=50)
TOY = Portrait4DConfig(**WIDTHS | CHANNELS | SINGLE | SIZES | SAMPLES, head=HEAD)


def write_toy(folder: Path) -> tuple[Path, Path, Path]:
    """A toy model, a folder of two photos and one of three driving frames."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Portrait4D(TOY).eval()
    with torch.no_grad():
        model.generator.plane_generator.output.weight *= 8
        model.generator.decoder.output.weight[0] *= 4
        model.generator.decoder.output.bias[0] = 25  # the density of the authors' surfaces, passed somewhere
    shape_ellipsoid(model.generator.head)
    model.save_pretrained(folder / "toy")
    for name, names in (("me", ["anna", "bert"]), ("clip", ["00000", "00001", "00002"])):
        write_frames(folder / name, driving_frames(model, len(names)), names)
        (folder / name / "align_images").mkdir()
        for number, each in enumerate(names):
            write_image(folder / name / "align_images" / f"{each}.png", portrait(model).image // (number + 1))
    return folder / "toy", folder / "me", folder / "clip"
