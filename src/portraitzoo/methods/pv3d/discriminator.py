"""PV3D's two discriminators (Xu et al., ICLR 2023, section 3.3): one looks at frames, one at pairs of frames."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.layers.discriminator import DiscriminatorBlock, DiscriminatorEpilogue, stack_pair
from portraitzoo.layers.mapping import LabelMapping
from portraitzoo.layers.resampling import resize
from portraitzoo.methods.pv3d.network import PV3DConfig
from portraitzoo.rendering.cameras import LABEL_SIZE

ACTIVATION_LIMIT = 256.0
LAST_RESOLUTION = 4


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of a discriminator; the defaults are those of the released checkpoints.

    Attributes:
        image_resolution: side of the images, pixels.
        channel_base: features of resolution r have ``channel_base / r`` channels,
        channel_max: but not more than this.
        mapping_layers: layers that map the camera.
        group_size: samples that share a minibatch deviation.
    """

    image_resolution: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 8
    group_size: int = 4

    @classmethod
    def beside(cls, generator: PV3DConfig) -> DiscriminatorConfig:
        """The discriminators that train with a generator: same image, same channels."""
        return cls(
            image_resolution=generator.image_resolution,
            channel_base=generator.channel_base,
            channel_max=generator.channel_max,
        )

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> DiscriminatorConfig:
        """Sizes read off an image discriminator's tensors; the group size, which they do not tell, is as published.

        Raises:
            CheckpointError: if they are not those of a discriminator.
        """
        blocks = {
            int(match[1]): tensor.shape[1]
            for name, tensor in tensors.items()
            if (match := re.fullmatch(r"blocks\.b(\d+)\.conv0\.weight", name))
        }
        layers = [name for name in tensors if re.fullmatch(r"mapping\.layers\.\d+\.weight", name)]
        if not blocks or "epilogue.conv.weight" not in tensors:
            raise CheckpointError("the tensors are not those of a PV3D discriminator: blocks are missing")
        channels = blocks | {LAST_RESOLUTION: len(tensors["epilogue.conv.weight"])}
        return cls(
            image_resolution=max(blocks),
            channel_base=max(resolution * count for resolution, count in channels.items()),
            channel_max=max(channels.values()),
            mapping_layers=len(layers),
        )

    def channels(self, resolution: int) -> int:
        """Channels of features of a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


class ConditionalDiscriminator(nn.Module):
    """StyleGAN2's residual discriminator, its output projected on mapped camera labels.

    Args:
        config: sizes.
        in_channels: channels of the input image.
        label_dim: width of the condition.
    """

    def __init__(self, config: DiscriminatorConfig, in_channels: int, label_dim: int) -> None:
        super().__init__()
        self.config = config
        resolution = config.image_resolution
        self.blocks = nn.ModuleDict()
        while resolution > LAST_RESOLUTION:
            self.blocks[f"b{resolution}"] = DiscriminatorBlock(
                config.channels(resolution),
                config.channels(resolution // 2),
                image_channels=in_channels if resolution == config.image_resolution else 0,
                clamp=ACTIVATION_LIMIT,
            )
            resolution //= 2
        channels = config.channels(LAST_RESOLUTION)
        self.epilogue = DiscriminatorEpilogue(
            channels,
            resolution=LAST_RESOLUTION,
            condition_dim=channels,
            group_size=config.group_size,
            clamp=ACTIVATION_LIMIT,
        )
        self.mapping = LabelMapping(label_dim, channels, config.mapping_layers)

    def forward(
        self, image: Float[Tensor, "batch channels height width"], label: Float[Tensor, "batch label_dim"]
    ) -> Float[Tensor, "batch 1"]:
        """Logits; positive means real."""
        x = image
        for block in self.blocks.values():
            x = block(x)
        return self.epilogue(x, self.mapping(label))


class ImageDiscriminator(ConditionalDiscriminator):
    """Judges a frame together with its raw image, given its camera (EG3D's dual discrimination).

    Args:
        config: sizes.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, in_channels=6, label_dim=LABEL_SIZE)

    def forward(  # type: ignore[override]
        self,
        image: Float[Tensor, "batch 3 height width"],
        image_raw: Float[Tensor, "batch 3 raw_height raw_width"],
        label: Float[Tensor, "batch 25"],
    ) -> Float[Tensor, "batch 1"]:
        """Logits; positive means real.

        Args:
            image: frames, about [-1, 1].
            image_raw: volume-rendered frames of any size; resized to that of ``image``.
            label: camera labels.
        """
        return super().forward(torch.cat([image, resize(image_raw, image.shape[-1])], dim=1), label)


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
