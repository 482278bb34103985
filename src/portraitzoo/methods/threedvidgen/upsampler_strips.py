"""The upsampler without gradients on a CPU: one frame, strip of rows by strip of rows through each block.

At 256 x 256 pixels with 128 channels one feature map takes 32 MiB: fresh memory costs more time than the arithmetic,
and nothing stays in the cache from one operation to the next. The result is that of the blocks, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portraitzoo.layers.activations import LEAKY_GAIN, LEAKY_SLOPE
from portraitzoo.layers.linear import FullyConnected
from portraitzoo.layers.resampling import upsample2d
from portraitzoo.methods.threedvidgen.upsampler import EnlargingLayer, UpsamplerBlock

STRIP_NUMBERS = 1 << 19
"""A strip of a block's output has about this many numbers (2 MiB)."""
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
        kind = _Neighbours if block.conv0.mode == "neighbours" else _AnyEnlargement
        self._enlargement = kind(block.conv0)

    def __call__(
        self, x: Float[Tensor, "height width in_channels"], keep: bool
    ) -> tuple[Float[Tensor, "2*height 2*width channels"], Float[Tensor, "2*height 2*width 3"]]:
        """Features (empty unless kept) and the block's part of the image."""
        height, width, _ = x.shape
        channels = len(self._mix)
        rows_of = self._enlargement.prepare(x @ self._weight)
        image = x.new_empty(2 * height, 2 * width, 3)
        features = x.new_empty((2 * height, 2 * width, channels) if keep else (0,))
        rows = max(1, STRIP_NUMBERS // (4 * width * channels))
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            strip = self._block.conv0.mix.activate(rows_of(start, stop).add_(self._shift))
            out = features[2 * start : 2 * stop] if keep else torch.empty_like(strip)
            torch.addmm(self._bias, strip.view(-1, channels), self._mix, out=out.view(-1, channels))
            self._block.conv1.mix.activate(out)
            product = torch.addmm(self._to_rgb[1], out.view(-1, channels), self._to_rgb[0])
            image[2 * start : 2 * stop] = self._block.torgb.activate(product).unflatten(0, (-1, 2 * width))
        return features, image


Rows = Callable[[int, int], Float[Tensor, "rows width channels"]]
"""From a range of rows of the low resolution to the twice as many rows that they become."""


class _AnyEnlargement:
    """An enlargement by the layer itself, on strips with some rows more than needed."""

    def __init__(self, layer: EnlargingLayer) -> None:
        self._layer = layer

    def prepare(self, low: Float[Tensor, "height width channels"]) -> Rows:
        """The enlargement of a map."""

        def rows(start: int, stop: int) -> Tensor:
            above, below = max(start - REACH, 0), min(stop + REACH, len(low))
            y = self._layer.enlarge(low[above:below], LEAKY_GAIN)
            return y[2 * (start - above) : 2 * (stop - above)].contiguous()

        return rows


class _Neighbours:
    """The enlargement of :meth:`EnlargingLayer.enlarge` in as few passes over memory as can be.

    Halves, eighths and the mean of neighbours are folded into the adapter's weights; sums go where they are wanted.
    """

    def __init__(self, layer: EnlargingLayer) -> None:
        first, second = (part for part in layer.adapter if isinstance(part, FullyConnected))
        mix = (first.weight * (first.weight_gain * LEAKY_GAIN)).T
        own, around = mix.split(len(mix) // 2)
        self._mix = torch.cat([own, around / 2], dim=1)
        self._bias = F.pad(first.bias * LEAKY_GAIN**2, (0, around.shape[1]))
        self._back = (second.weight * (second.weight_gain / 64)).T
        self._constant = second.bias * LEAKY_GAIN
        self._hidden = around.shape[1]

    def prepare(self, low: Float[Tensor, "height width channels"]) -> Rows:
        """The enlargement of a map."""
        height, width, channels = low.shape
        seen = torch.addmm(self._bias, low.view(-1, channels), self._mix).view(height, width, -1)
        own, around = seen.split(self._hidden, dim=-1)
        around = F.pad(around, (0, 0, 1, 1, 2, 2))
        own = F.pad(own, (0, 0, 0, 0, 1, 1))
        quarter = F.pad((low + self._constant) / 4, (0, 0, 1, 1, 1, 1))

        def rows(start: int, stop: int) -> Tensor:
            y = self._smooth(quarter[start : stop + 2])
            hidden = self._answer(own[start : stop + 2], around[start : stop + 4])
            # Beyond the image there are zeros, not what the adapter would make of zeros.
            if start == 0:
                hidden[:2] = 0
            if stop == height:
                hidden[-2:] = 0
            blurred = _low_pass(_low_pass(hidden[:-1], 0), 1)
            y.view(-1, channels).addmm_(blurred.view(-1, self._hidden), self._back)
            return y

        return rows

    def _smooth(self, x: Float[Tensor, "rows+2 width+2 channels"]) -> Float[Tensor, "2*rows 2*width channels"]:
        """Four times the smoothly enlarged map; what comes in has a border of one pixel."""
        rows, width = x.shape[0] - 2, x.shape[1] - 2
        tall = x.new_empty(rows, 2, width + 2, x.shape[2])
        _even_and_odd(x[:-2], x[1:-1], x[2:], tall[:, 0], tall[:, 1])
        wide = x.new_empty(2 * rows, width, 2, x.shape[2])
        tall = tall.flatten(0, 1)
        _even_and_odd(tall[:, :-2], tall[:, 1:-1], tall[:, 2:], wide[:, :, 0], wide[:, :, 1])
        return wide.flatten(1, 2)

    def _answer(
        self, own: Float[Tensor, "rows width hidden"], around: Float[Tensor, "rows+2 width+2 hidden"]
    ) -> Float[Tensor, "2*rows 2*width+3 hidden"]:
        """Hidden features of the adapter, with two columns of zeros before and one after."""
        rows, width, hidden = own.shape
        y = own.new_zeros(rows, 2, 2 * width + 3, hidden)
        for down, vertical in enumerate((around[:-2, 1:-1], around[2:, 1:-1])):
            base = own + vertical
            for right, side in enumerate((around[1:-1, :-2], around[1:-1, 2:])):
                torch.add(base, side, out=y[:, down, 2 + right : 2 + right + 2 * width : 2])
        return F.leaky_relu_(y, LEAKY_SLOPE).flatten(0, 1)


def _even_and_odd(before: Tensor, own: Tensor, after: Tensor, even: Tensor, odd: Tensor) -> None:
    """Write twice the two pixels that one becomes along an axis."""
    torch.add(before, own, out=even)
    torch.add(before, after, out=odd).mul_(0.25).add_(own, alpha=1.5)


def _low_pass(x: Float[Tensor, "rows width channels"], axis: int) -> Float[Tensor, "*smaller channels"]:
    """Eight times the binomial filter along an axis, which loses three."""
    size = x.shape[axis] - 3
    a, b, c, d = (x.narrow(axis, start, size) for start in range(4))
    return torch.add(a, d).add_(b, alpha=3).add_(c, alpha=3)
