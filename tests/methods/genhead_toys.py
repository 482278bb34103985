"""A small GenHead around a made-up head, for the tests, without any reference."""

import sys
from pathlib import Path

import torch

sys.path.append(
    str(Path(__file__).resolve().parents[1] / "faces")
)  # the made-up head lives beside the heads' own tests
from toy_head import toy_arrays

from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.methods.genhead.model import GenHead
from portraitzoo.methods.genhead.network import GenHeadConfig

SMALL = GenHeadConfig(
    z_dim=16,
    w_dim=16,
    image_resolution=64,
    plane_resolution=32,
    plane_channels=8,
    channel_base=512,
    channel_max=16,
    background_resolution=16,
    background_channel_base=256,
    background_channel_max=16,
    background_mapping_layers=2,
    decoder_width=16,
    super_resolution_input=16,
    super_resolution_channels=(12, 8),
    samples=8,
    render_resolution=12,
    head=HeadSizes.of_arrays(toy_arrays()),
)


def toy_head() -> FlameHead:
    """The made-up head."""
    return FlameHead.from_arrays(toy_arrays())


def small_model(seed: int = 0, density: float = 3.0) -> GenHead:
    """Random weights that show something: neither an empty nor an opaque volume."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GenHead(SMALL).eval().requires_grad_(False)
        model.generator.head.load_state_dict(toy_head().state_dict())
        decoder = model.generator.decoder.output
        decoder.weight[0].normal_(std=6)
        decoder.bias[0] = density
    return model
