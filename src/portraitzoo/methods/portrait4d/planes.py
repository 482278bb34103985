"""From canonical features and details to tri-planes (Portrait4D, CVPR 2024, section 3.3; after Live3DPortrait)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.convolution import Convolution, convolve
from portraitzoo.layers.transformer import PatchEmbedding, TransformerBlock, as_image, initialise, plus
from portraitzoo.methods.portrait4d.encoders import leaky_relu

LAST_DEVIATION = 0.15


class PlaneGenerator(nn.Module):
    """Convolutions, self-attention at a quarter of the image's size, convolutions.

    Args:
        canonical_channels: channels of the canonical features.
        detail_channels: channels of the details.
        in_widths: channels of the convolutions before the transformer.
        width: width of a token.
        heads: of attention.
        mlp_ratio: how much wider the feed-forward network is.
        reduction: side of the squares of tokens that share a key.
        blocks: transformer blocks.
        out_widths: channels of the convolutions behind the transformer.
        plane_channels: channels of each plane.
    """

    def __init__(
        self,
        canonical_channels: int,
        detail_channels: int,
        *,
        in_widths: tuple[int, int],
        width: int,
        heads: int,
        mlp_ratio: int,
        reduction: int,
        blocks: int,
        out_widths: tuple[int, int, int],
        plane_channels: int,
    ) -> None:
        super().__init__()
        self.canonical_channels = canonical_channels
        wide, narrow = in_widths
        self.input = Convolution(canonical_channels + detail_channels, wide)
        self.narrow = Convolution(wide, narrow)
        self.patches = PatchEmbedding(narrow, width)
        self.blocks = nn.ModuleList(
            [TransformerBlock(width, heads, mlp_ratio, reduction=reduction) for _ in range(blocks)]
        )
        self.convs = nn.ModuleList()
        before = width // 4 + canonical_channels
        for after in out_widths:
            self.convs.append(Convolution(before, after))
            before = after
        self.output = Convolution(before, 3 * plane_channels)
        initialise(self)
        nn.init.normal_(self.output.weight, std=LAST_DEVIATION)

    def prepare(self, detail: Float[Tensor, "batch detail height width"]) -> Float[Tensor, "batch wide height width"]:
        """What the details contribute to the first convolution: the same for all frames of a photo."""
        weight = self.input.weight[:, self.canonical_channels :]
        return convolve(detail, weight, self.input.bias)

    def forward(
        self,
        canonical: Float[Tensor, "batch canonical height width"],
        prepared: Float[Tensor, "batch wide height width"],
    ) -> Float[Tensor, "batch 3*channels height width"]:
        """Tri-planes, one after the other along the channels.

        Args:
            canonical: features with the driving motion.
            prepared: from :meth:`prepare`.
        """
        x = plus(convolve(canonical, self.input.weight[:, : self.canonical_channels]), prepared)
        x = leaky_relu(self.narrow(leaky_relu(x)))
        grid = (x.shape[-2] // 2, x.shape[-1] // 2)
        tokens = self.patches(x)
        for block in self.blocks:
            tokens = block(tokens, grid)
        x = torch.cat([F.pixel_shuffle(as_image(tokens, grid), 2), canonical], dim=1)
        for conv in self.convs:
            x = leaky_relu(conv(x))
        return self.output(x)
