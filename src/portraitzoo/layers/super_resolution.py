"""The super-resolution behind a volume renderer (Chan et al., 2022, "EG3D", section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.modulation import NoiseMode
from portraitzoo.layers.resampling import resize
from portraitzoo.layers.synthesis import SynthesisBlock

ACTIVATION_LIMIT = 256.0
"""Clamp of the super-resolution, which lets it run in half precision (StyleGAN2-ADA, appendix E)."""


class SuperResolution(nn.Module):
    """StyleGAN2 blocks, each of which doubles the size of the rendered features; free of noise unless told otherwise.

    Args:
        in_channels: channels of the rendered features.
        w_dim: width of the style vector.
        input_resolution: side of the features that enter the first block; others are resized to it.
        channels: of each block.
        noise: per-pixel noise; without it the blocks have no weights for it.
    """

    def __init__(
        self,
        in_channels: int,
        w_dim: int,
        *,
        input_resolution: int,
        channels: Sequence[int],
        noise: NoiseMode = "none",
    ) -> None:
        super().__init__()
        self.noise: NoiseMode = noise
        self.input_resolution = resolution = input_resolution
        self.blocks = nn.ModuleList()
        for out_channels in channels:
            resolution *= 2
            self.blocks.append(
                SynthesisBlock(
                    in_channels,
                    out_channels,
                    w_dim,
                    resolution=resolution,
                    image_channels=3,
                    noise=noise != "none",
                    clamp=ACTIVATION_LIMIT,
                )
            )
            in_channels = out_channels

    def forward(
        self,
        image_raw: Float[Tensor, "batch 3 resolution resolution"],
        features: Float[Tensor, "batch in_channels resolution resolution"],
        w: Float[Tensor, "batch w_dim"],
    ) -> Float[Tensor, "batch 3 image_resolution image_resolution"]:
        """Finished image; one style vector serves all layers."""
        x, image = resize(features, self.input_resolution), resize(image_raw, self.input_resolution)
        for block in self.blocks:
            last = block is self.blocks[-1]
            x, image = block(x, image, w[:, None].expand(-1, 3, -1), noise=self.noise, keep_features=not last)
        return image
