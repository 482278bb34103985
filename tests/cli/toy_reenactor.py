"""A Portrait4D small enough to animate a photo in a second, and a prepared folder for it."""

from pathlib import Path

import torch

from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.media.images import write_image
from portraitzoo.methods.portrait4d.benchmark import driving_frames, portrait, shape_ellipsoid
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.folders import write_frames
from portraitzoo.methods.portrait4d.model import Portrait4D

TOY = Portrait4DConfig(
    image_resolution=32,
    motion_dim=12,
    motion_width=8,
    motion_tokens=4,
    w_dim=8,
    global_stem=4,
    global_widths=(4, 4, 4, 4),
    global_depths=(1, 1, 1, 1),
    global_channels=8,
    atrous_rates=(1, 1, 2),
    detail_channels=(4, 4),
    canonical_width=16,
    canonical_heads=2,
    neutral_blocks=1,
    motion_blocks=1,
    canonical_channels=(4, 4, 4),
    plane_inputs=(4, 4),
    plane_width=16,
    plane_outputs=(4, 4, 4),
    plane_channels=4,
    background_widths=(4, 4, 4, 4),
    decoder_width=8,
    super_resolution_input=16,
    super_resolution_channels=(4,),
    depth_samples=6,
    importance_samples=6,
    render_resolution=8,
    head=HeadSizes(vertices=40, faces=60, coarse_vertices=30, coarse_faces=50),
)


def write_toy(folder: Path) -> tuple[Path, Path, Path]:
    """A toy model, a folder of two photos and one of three driving frames."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Portrait4D(TOY).eval()
    with torch.no_grad():
        model.generator.decoder.output.bias[0] = 25  # about the density of the authors' surfaces
    shape_ellipsoid(model.generator.head)
    model.save_pretrained(folder / "toy")
    for name, names in (("me", ["anna", "bert"]), ("clip", ["00000", "00001", "00002"])):
        write_frames(folder / name, driving_frames(model, len(names)), names)
        (folder / name / "align_images").mkdir()
        for number, each in enumerate(names):
            write_image(folder / name / "align_images" / f"{each}.png", portrait(model).image // (number + 1))
    return folder / "toy", folder / "me", folder / "clip"
