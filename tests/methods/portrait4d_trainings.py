"""A Portrait4D around the made-up head, at a size that trains in a fraction of a second per update."""

from dataclasses import replace
from pathlib import Path

from genhead_toys import toy_head
from lightning.pytorch import seed_everything
from portrait4d_faces import SMALL

from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.methods.portrait4d.curriculum import LossWeights
from portraitzoo.methods.portrait4d.discriminator import DiscriminatorConfig
from portraitzoo.methods.portrait4d.model import Portrait4D

SIZE = 32
NETWORK = replace(
    SMALL,
    image_resolution=SIZE,
    motion_dim=109,
    super_resolution_channels=(8,),
    depth_samples=6,
    importance_samples=6,
    render_resolution=8,
    head=HeadSizes.of_tensors(toy_head().state_dict()),
)
DISCRIMINATOR = DiscriminatorConfig(image_resolution=SIZE, channel_base=128, channel_max=8, mapping_layers=2)
UNAIDED = LossWeights(perceptual=0.0, identity=0.0)
"""Losses that need no ready network."""


def untrained(folder: Path, **changes: object) -> Path:
    """A fresh model around the made-up head, which runs start from."""
    seed_everything(0, verbose=False)
    model = Portrait4D(replace(NETWORK, **changes))
    model.generator.head.load_state_dict(toy_head().state_dict())
    model.save_pretrained(folder)
    return folder
