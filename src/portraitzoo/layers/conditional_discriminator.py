"""StyleGAN2's residual discriminator with a condition, and EG3D's dual discrimination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.layers.discriminator import DiscriminatorBlock, DiscriminatorEpilogue
from portraitzoo.layers.mapping import LabelMapping
from portraitzoo.layers.resampling import resize

ACTIVATION_LIMIT = 256.0
LAST_RESOLUTION = 4


@dataclass(frozen=True)
class DiscriminatorSizes:
    """Sizes of a discriminator; the defaults are EG3D's at 512 pixels.

    Attributes:
        image_resolution: side of the images, pixels.
        channel_base: features of resolution r have ``channel_base / r`` channels,
        channel_max: but not more than this.
        mapping_layers: layers that map the condition.
        group_size: samples that share a minibatch deviation.
    """

    image_resolution: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 8
    group_size: int = 4

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Sizes read off a discriminator's tensors, by our names or by StyleGAN2's; the size of groups, which they do
        not tell, is the default.

        Raises:
            CheckpointError: if they are not those of a discriminator.
        """
        channels = {
            int(match[1]): tensor.shape[1]
            for name, tensor in tensors.items()
            if (match := re.fullmatch(r"(?:blocks\.)?b(\d+)\.conv0\.weight", name))
        }
        last = next((tensors[name] for name in ("epilogue.conv.weight", "b4.conv.weight") if name in tensors), None)
        if not channels or last is None:
            raise CheckpointError("the tensors are not those of a conditional discriminator: blocks are missing")
        image_resolution = max(channels)
        channels[LAST_RESOLUTION] = len(last)
        return cls(
            image_resolution=image_resolution,
            channel_base=max(resolution * count for resolution, count in channels.items()),
            channel_max=max(channels.values()),
            mapping_layers=sum(bool(re.fullmatch(r"mapping\.(?:layers\.|fc)\d+\.weight", name)) for name in tensors),
        )

    def channels(self, resolution: int) -> int:
        """Channels of features of a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


class ConditionalDiscriminator(nn.Module):
    """StyleGAN2's residual discriminator, its output projected on mapped labels.

    Args:
        config: sizes.
        in_channels: channels of the input image.
        label_dim: width of the condition.
    """

    def __init__(self, config: DiscriminatorSizes, in_channels: int, label_dim: int) -> None:
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


class DualDiscriminator(ConditionalDiscriminator):
    """Judges an image together with its raw image and maps of it, given its label (EG3D, section 4.3).

    Args:
        config: sizes.
        label_dim: width of the label.
        map_channels: channels of all maps together.
    """

    def __init__(self, config: DiscriminatorSizes, label_dim: int, map_channels: int = 0) -> None:
        super().__init__(config, in_channels=6 + map_channels, label_dim=label_dim)

    def forward(  # type: ignore[override]
        self,
        image: Float[Tensor, "batch 3 height width"],
        image_raw: Float[Tensor, "batch 3 raw_height raw_width"],
        label: Float[Tensor, "batch label_dim"],
        *maps: Float[Tensor, "batch _ _ _"],
    ) -> Float[Tensor, "batch 1"]:
        """Logits; positive means real.

        Args:
            image: finished images, about [-1, 1].
            image_raw: volume-rendered images of any size; resized to that of ``image``.
            label: conditions.
            maps: further maps of any size, resized likewise.
        """
        beside = [resize(part, image.shape[-1]) for part in (image_raw, *maps)]
        return super().forward(torch.cat([image, *beside], dim=1), label)
