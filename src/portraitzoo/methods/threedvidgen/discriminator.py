"""The two discriminators (Bahmani et al., section 3.3): one looks at pairs of frames, one at single frames."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.layers.discriminator import DiscriminatorEpilogue, SkipDiscriminatorBlock, stack_pair
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig

ACTIVATION_LIMIT = 256.0
LAST_RESOLUTION = 4


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a discriminator; the defaults are those of the FaceForensics checkpoint.

    Attributes:
        image_resolution: side of the images, pixels.
        channel_base: features of resolution r have ``channel_base / r`` channels,
        channel_max: but not more than this.
        group_size: samples that share a minibatch deviation.
    """

    image_resolution: int = 256
    channel_base: int = 32768
    channel_max: int = 512
    group_size: int = 8

    @classmethod
    def beside(cls, generator: ThreeDVidGenConfig) -> DiscriminatorConfig:
        """The discriminators that train with a generator: same image, same channels."""
        return cls(generator.image_resolution, generator.channel_base, generator.channel_max)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> DiscriminatorConfig:
        """Sizes read off a discriminator's tensors; the group size, which they do not tell, is as published.

        Raises:
            CheckpointError: if they are not those of a discriminator.
        """
        blocks = {
            int(match[1]): len(tensor)
            for name, tensor in tensors.items()
            if (match := re.fullmatch(r"blocks\.b(\d+)\.conv0\.weight", name))
        }
        if not blocks or "epilogue.conv.weight" not in tensors:
            raise CheckpointError("the tensors are not those of a threedvidgen discriminator: blocks are missing")
        channels = blocks | {LAST_RESOLUTION: len(tensors["epilogue.conv.weight"])}
        base = max(resolution * count for resolution, count in channels.items())
        return cls(max(blocks), base, max(channels.values()))

    def channels(self, resolution: int) -> int:
        """Channels of features of a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


class SkipDiscriminator(nn.Module):
    """StyleGAN2's discriminator with skips, without condition.

    Args:
        config: sizes.
        in_channels: channels of the input.
    """

    def __init__(self, config: DiscriminatorConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict()
        resolution = config.image_resolution
        while resolution > LAST_RESOLUTION:
            self.blocks[f"b{resolution}"] = SkipDiscriminatorBlock(
                config.channels(resolution), config.channels(resolution // 2), in_channels, clamp=ACTIVATION_LIMIT
            )
            resolution //= 2
        self.epilogue = DiscriminatorEpilogue(
            config.channels(LAST_RESOLUTION),
            resolution=LAST_RESOLUTION,
            condition_dim=0,
            image_channels=in_channels,
            group_size=config.group_size,
            clamp=ACTIVATION_LIMIT,
        )

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1"]:
        """Logits; positive means real. Batches larger than the group size must be multiples of it."""
        x = None
        for block in self.blocks.values():
            x, image = block(x, image)
        return self.epilogue(x, image=image)


class ImageDiscriminator(SkipDiscriminator):
    """Judges single frames [batch, 3, height, width].

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, in_channels=3)


class VideoDiscriminator(SkipDiscriminator):
    """Judges two frames of a video and the time between them: [batch, 7, height, width] of :meth:`stack_pair`.

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, in_channels=7)

    stack_pair = staticmethod(stack_pair)
