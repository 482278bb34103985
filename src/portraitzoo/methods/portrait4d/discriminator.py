"""Portrait4D's discriminator: EG3D's, which sees the face's correspondences and its mask too."""

from __future__ import annotations

from dataclasses import dataclass

from portraitzoo.layers.conditional_discriminator import DiscriminatorSizes, DualDiscriminator
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.rendering.cameras import LABEL_SIZE

UV_CHANNELS, MASK_CHANNELS = 3, 1
LEAST_CHANNELS = 8


@dataclass(frozen=True)
class DiscriminatorConfig(DiscriminatorSizes):
    """Sizes of the discriminator; the defaults are those of the released checkpoints."""

    group_size: int = 2

    @classmethod
    def beside(cls, generator: Portrait4DConfig) -> DiscriminatorConfig:
        """The discriminator that trains with a reconstructor of this size: as much narrower than the released one as
        that is.
        """
        share = generator.plane_width / Portrait4DConfig().plane_width
        return cls(
            image_resolution=generator.image_resolution,
            channel_base=round(cls.channel_base * share),
            channel_max=max(round(cls.channel_max * share), LEAST_CHANNELS),
        )


class Discriminator(DualDiscriminator):
    """Judges a frame with its raw frame, its map of canonical face coordinates and its mask, given the camera.

    ``discriminator(image, image_raw, label, uv, mask)``; ``label`` is the camera's.

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, LABEL_SIZE, map_channels=UV_CHANNELS + MASK_CHANNELS)
