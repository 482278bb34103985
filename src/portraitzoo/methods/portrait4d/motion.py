"""Portrait4D's motion-aware transformer: the face of a photo made neutral, then animated (CVPR 2024, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.convolution import Convolution
from portraitzoo.layers.transformer import PatchEmbedding, TransformerBlock, as_image, initialise
from portraitzoo.methods.portrait4d.encoders import LEAKY_SLOPE

Scale = float | Float[Tensor, "batch 1 1"]
"""Factor of what motions contribute; 0 for a network that keeps the face of the photo (Portrait4D-static)."""


class MotionTokens(nn.Module):
    """From a motion embedding to the tokens that cross-attention looks at.

    Args:
        motion_dim: width of the embedding.
        hidden: width of the layers.
        layers: their number.
        tokens: number of tokens.
        width: width of a token.
    """

    def __init__(self, motion_dim: int, hidden: int, layers: int, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.map = nn.Sequential()
        for layer in range(layers):
            self.map.extend([nn.Linear(hidden if layer else motion_dim, hidden), nn.LeakyReLU(LEAKY_SLOPE)])
        self.project = nn.Linear(hidden, tokens * width)

    def forward(self, motion: Float[Tensor, "batch motion_dim"]) -> Float[Tensor, "batch tokens width"]:
        """Tokens, one after the other in the output of the last layer."""
        return self.project(self.map(motion)).unflatten(1, (self.tokens, -1))


class MotionTransformer(nn.Module):
    """Blocks that attend to the motion of the photo and neutralise it, then blocks that attend to the driving motion.

    Args:
        in_channels: channels of the global features.
        motion_dim: width of a motion embedding.
        motion_width: width of the layers that map it.
        motion_layers: their number.
        motion_tokens: tokens it becomes.
        width: width of a token.
        heads: of attention.
        mlp_ratio: how much wider the feed-forward networks are.
        neutral_blocks: blocks that see the photo's motion.
        motion_blocks: blocks that see the driving motion.
        out_channels: of the three convolutions that enlarge the result.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        motion_dim: int,
        motion_width: int,
        motion_layers: int,
        motion_tokens: int,
        width: int,
        heads: int,
        mlp_ratio: int,
        neutral_blocks: int,
        motion_blocks: int,
        out_channels: tuple[int, int, int],
    ) -> None:
        super().__init__()
        tokens = (motion_dim, motion_width, motion_layers, motion_tokens, width)
        self.source_motion = MotionTokens(*tokens)
        self.drive_motion = MotionTokens(*tokens)
        self.patches = PatchEmbedding(in_channels, width)
        self.neutral_blocks, self.motion_blocks = (
            nn.ModuleList([TransformerBlock(width, heads, mlp_ratio, cross=True) for _ in range(count)])
            for count in (neutral_blocks, motion_blocks)
        )
        first, second, last = out_channels
        self.head = nn.ModuleList(
            [
                Convolution(width // 4, first),
                Convolution(first, second),
                Convolution(second, last),
            ]
        )
        initialise(self)

    def neutral(
        self,
        features: Float[Tensor, "batch channels size size"],
        motion_source: Float[Tensor, "batch motion_dim"],
        scale: Scale = 1.0,
    ) -> Float[Tensor, "batch tokens width"]:
        """Tokens of the photo with its motion taken out: all that does not depend on the driving motion.

        Args:
            features: of the photo.
            motion_source: motion embedding of the photo.
            scale: of the motion.
        """
        grid = (features.shape[-2] // 2, features.shape[-1] // 2)
        return self._attend(self.neutral_blocks, self.patches(features), grid, self.source_motion, motion_source, scale)

    def animate(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        motion_drive: Float[Tensor, "batch motion_dim"],
        scale: Scale = 1.0,
    ) -> Float[Tensor, "batch channels 8*rows 8*rows"]:
        """Canonical features with the driving motion.

        Args:
            tokens: from :meth:`neutral`, a square grid.
            motion_drive: motion embedding of the driving picture.
            scale: of the motion.
        """
        side = round(tokens.shape[1] ** 0.5)
        grid = (side, side)
        tokens = self._attend(self.motion_blocks, tokens, grid, self.drive_motion, motion_drive, scale)
        x = F.pixel_shuffle(as_image(tokens, grid), 2)
        x = F.relu(self.head[0](_doubled(x)))
        return self.head[2](F.relu(self.head[1](_doubled(x))))

    def _attend(
        self,
        blocks: nn.ModuleList,
        tokens: Tensor,
        grid: tuple[int, int],
        to_tokens: MotionTokens,
        motion: Tensor,
        scale: Scale,
    ) -> Tensor:
        context = to_tokens(motion) if isinstance(scale, Tensor) or scale else None
        for block in blocks:
            tokens = block(tokens, grid, context, scale)
        return tokens


def _doubled(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Bilinear, with the corner pixels kept in the corners: the one place of the network where that is so."""
    return F.interpolate(
        x.contiguous(memory_format=torch.channels_last), scale_factor=2, mode="bilinear", align_corners=True
    )
