"""The upsampler without gradients on a CPU: one frame, strip of rows by strip of rows through each block.

At 256 x 256 pixels with 128 channels one feature map takes 32 MiB: fresh memory costs more time than the arithmetic,
and nothing stays in the cache from one operation to the next. The result is that of the blocks, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.layers.activations import LEAKY_GAIN
from portraitzoo.layers.resampling import upsample2d
from portraitzoo.methods.threedvidgen.upsampler import UpsamplerBlock

STRIP_NUMBERS = 1 << 20
"""A strip of a block's output has about this many numbers (4 MiB)."""
REACH = 2
"""Rows of input above and below that an enlarged row sees."""


class StyledUpsampler:
    """The upsampler of one person, its weights modulated once for all frames.

    Args:
        blocks: the blocks, each with its style vectors [1, 3, w_dim].
    """

    def __init__(self, blocks: Iterable[tuple[UpsamplerBlock, Float[Tensor, "1 3 w_dim"]]]) -> None:
        self._blocks = [_StyledBlock(block, ws) for block, ws in blocks]

    def __call__(
        self, x: Float[Tensor, "1 1 height width channels"], image: Float[Tensor, "1 1 height width 3"]
    ) -> Float[Tensor, "1 1 image_height image_width 3"]:
        """Finished image of rendered features and colour."""
        features, below = x[0, 0], image[0].movedim(-1, 1)
        for block in self._blocks:
            features, added = block(features, keep=block is not self._blocks[-1])
            below = upsample2d(below).add_(added.movedim(-1, 0))
        return below.movedim(1, -1)[None]


class _StyledBlock:
    """One block for one style."""

    def __init__(self, block: UpsamplerBlock, ws: Float[Tensor, "1 3 w_dim"]) -> None:
        self._weight, self._shift = (part.squeeze(0) for part in block.conv0.effective(ws[:, 0]))
        self._mix, self._bias = (part.squeeze(0) for part in block.conv1.effective(ws[:, 1]))
        self._to_rgb = [part.squeeze(0) for part in block.torgb.effective(ws[:, 2])]
        self._block = block

    def __call__(
        self, x: Float[Tensor, "height width in_channels"], keep: bool
    ) -> tuple[Float[Tensor, "2*height 2*width channels"], Float[Tensor, "2*height 2*width 3"]]:
        """Features (empty unless kept) and the block's part of the image."""
        height, width, _ = x.shape
        channels = len(self._mix)
        low = x @ self._weight
        image = x.new_empty(2 * height, 2 * width, 3)
        features = x.new_empty((2 * height, 2 * width, channels) if keep else (0,))
        rows = max(1, STRIP_NUMBERS // (4 * width * channels))
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            strip = self._enlarged(low, start, stop)
            out = features[2 * start : 2 * stop] if keep else torch.empty_like(strip)
            torch.addmm(self._bias, strip.flatten(0, 1), self._mix, out=out.view(-1, channels))
            self._block.conv1.mix.activate(out)
            product = torch.addmm(self._to_rgb[1], out.view(-1, channels), self._to_rgb[0])
            image[2 * start : 2 * stop] = self._block.torgb.activate(product).unflatten(0, (-1, 2 * width))
        return features, image

    def _enlarged(
        self, low: Float[Tensor, "height width channels"], start: int, stop: int
    ) -> Float[Tensor, "2*(stop-start) 2*width channels"]:
        """Rows ``2 * start`` to ``2 * stop`` of the first layer's output."""
        above, below = max(start - REACH, 0), min(stop + REACH, len(low))
        y = self._block.conv0.enlarge(low[above:below], LEAKY_GAIN)[2 * (start - above) : 2 * (stop - above)]
        return self._block.conv0.mix.activate(y.add_(self._shift))
