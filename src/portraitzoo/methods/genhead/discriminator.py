"""GenHead's discriminator: EG3D's, which sees the face's correspondences and the segmentation too.

Deng et al., CVPR 2024, "Portrait4D", section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from portraitzoo.layers.conditional_discriminator import DiscriminatorSizes, DualDiscriminator
from portraitzoo.methods.genhead.network import GenHeadConfig
from portraitzoo.rendering.cameras import LABEL_SIZE

CORRESPONDENCE_CHANNELS, SEGMENTATION_CHANNELS = 3, 1


@dataclass(frozen=True)
class DiscriminatorConfig(DiscriminatorSizes):
    """Sizes of the discriminator; the defaults are those of the released network."""

    group_size: int = 2

    @classmethod
    def beside(cls, generator: GenHeadConfig) -> DiscriminatorConfig:
        """The discriminator that trains with a generator: same image, same channels."""
        return cls(
            image_resolution=generator.image_resolution,
            channel_base=generator.channel_base,
            channel_max=generator.channel_max,
        )


class Discriminator(DualDiscriminator):
    """Judges an image with its raw image, its correspondence map and its segmentation, given the head's camera.

    ``discriminator(image, image_raw, label, correspondence, segmentation)``; the label is that of the camera which
    holds the whole pose of the head, the segmentation 1 on the head and -1 beside it.

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, LABEL_SIZE, map_channels=CORRESPONDENCE_CHANNELS + SEGMENTATION_CHANNELS)
