"""A small Portrait4D, a photo and driving frames for the tests, without any reference."""

from dataclasses import replace
from pathlib import Path

import torch

from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.media.images import write_image
from portraitzoo.methods.portrait4d.benchmark import driving_frames, portrait, shape_ellipsoid
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.folders import write_frames
from portraitzoo.methods.portrait4d.model import Portrait4D

SMALL = Portrait4DConfig(
    image_resolution=64,
    motion_dim=20,
    motion_width=16,
    motion_tokens=8,
    w_dim=16,
    global_stem=8,
    global_widths=(8, 8, 12, 12),
    global_depths=(1, 1, 1, 1),
    global_channels=16,
    atrous_rates=(1, 2, 3),
    detail_channels=(8, 8),
    canonical_width=32,
    canonical_heads=2,
    neutral_blocks=1,
    motion_blocks=1,
    canonical_channels=(8, 8, 8),
    plane_inputs=(8, 8),
    plane_width=32,
    plane_outputs=(8, 8, 8),
    plane_channels=8,
    background_widths=(4, 8, 8, 8),
    decoder_width=16,
    super_resolution_input=16,
    super_resolution_channels=(8, 4),
    depth_samples=8,
    importance_samples=8,
    render_resolution=12,
    head=HeadSizes(vertices=40, faces=60, coarse_vertices=30, coarse_faces=50),
)


def small_model(seed: int = 0, **changes: object) -> Portrait4D:
    """Random weights that show something: neither an empty nor an opaque volume."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Portrait4D(replace(SMALL, **changes)).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "transformer" in name and name.endswith("weight") and parameter.ndim == 2:
                parameter.normal_(std=1.5 / parameter.shape[1] ** 0.5)
    with torch.no_grad():
        decoder = model.generator.decoder.output
        decoder.weight[0] *= 4
        decoder.bias[0] = 3
        model.generator.plane_generator.output.weight *= 8
    shape_ellipsoid(model.generator.head)
    return model


def prepared(folder: Path, model: Portrait4D, names: list[str]) -> Path:
    """A prepared folder of frames with these names, each with the same picture but for its brightness."""
    write_frames(folder, driving_frames(model, len(names)), names)
    (folder / "align_images").mkdir()
    for number, name in enumerate(names):
        write_image(folder / "align_images" / f"{name}.png", portrait(model).image // (number + 1))
    return folder
