"""PV3D's two discriminators (Xu et al., ICLR 2023, section 3.3): one looks at frames, one at pairs of frames."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from portraitzoo.layers.conditional_discriminator import (
    ConditionalDiscriminator,
    DiscriminatorSizes,
    DualDiscriminator,
)
from portraitzoo.layers.discriminator import stack_pair
from portraitzoo.methods.pv3d.network import PV3DConfig
from portraitzoo.rendering.cameras import LABEL_SIZE


@dataclass(frozen=True)
class DiscriminatorConfig(DiscriminatorSizes):
    """Sizes of a discriminator; the defaults are those of the released checkpoints."""

    @classmethod
    def beside(cls, generator: PV3DConfig) -> DiscriminatorConfig:
        """The discriminators that train with a generator: same image, same channels."""
        return cls(
            image_resolution=generator.image_resolution,
            channel_base=generator.channel_base,
            channel_max=generator.channel_max,
        )


class ImageDiscriminator(DualDiscriminator):
    """Judges a frame together with its raw image, given its camera (EG3D's dual discrimination).

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, LABEL_SIZE)


class VideoDiscriminator(ConditionalDiscriminator):
    """Judges two frames of a clip and the time between them, given both cameras (PV3D, section 3.3).

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, in_channels=7, label_dim=2 * LABEL_SIZE)

    def forward(
        self, pair: Float[Tensor, "batch 7 height width"], labels: Float[Tensor, "batch 2 25"]
    ) -> Float[Tensor, "batch 1"]:
        """Logits of pairs from :meth:`stack_pair`; positive means real."""
        return super().forward(pair, labels.flatten(1))

    stack_pair = staticmethod(stack_pair)
