"""A synthesis block at inference, strip by strip.

At 512 x 512 pixels with 128 channels one feature map takes 128 MiB. Fresh memory of that size costs the operating
system about as much time as filling it costs the processor, and nothing stays in the cache from one operation to the
next. So a large block is computed in strips of rows through all of its layers; the result is that of the whole block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.layers.activations import LEAKY_GAIN, biased_leaky_relu
from portraitzoo.layers.convolution import convolve, convolve_up
from portraitzoo.layers.modulation import NoiseMode, SynthesisLayer, modulated_weight
from portraitzoo.layers.resampling import upsample2d

if TYPE_CHECKING:
    from portraitzoo.layers.synthesis import SynthesisBlock

STRIP_ROWS = 32
"""Rows of a block's input done at a time."""
LARGE = 1 << 23
"""Blocks whose output has at least this many numbers (32 MiB) are worth it."""
REACH = 2
"""Rows of input above and below that an up-convolution's output sees."""


def pays_off(block: SynthesisBlock, x: Tensor | None, noise: NoiseMode) -> bool:
    """Whether :func:`synthesise` can do this block's work and is faster."""
    return (
        x is not None
        and not torch.is_grad_enabled()
        and len(x) == 1
        and x.device.type == "cpu"
        and noise != "random"  # rows computed twice would differ
        and 4 * x.shape[-2] * x.shape[-1] * block.conv1.weight.shape[0] >= LARGE
    )


def synthesise(
    block: SynthesisBlock,
    x: Float[Tensor, "1 in_channels height width"],
    image: Float[Tensor, "1 image_channels height width"],
    ws: Float[Tensor, "1 layers w_dim"],
    noise: NoiseMode,
    keep_features: bool,
) -> tuple[Float[Tensor, "1 out_channels 2*height 2*width"] | None, Float[Tensor, "1 image_channels 2*height 2*width"]]:
    """What :meth:`SynthesisBlock.forward` computes for one sample without gradients."""
    up, same = _OneStyle(block.conv0, ws[:, 0], noise), _OneStyle(block.conv1, ws[:, 1], noise)
    x = x.contiguous(memory_format=torch.channels_last)
    height = x.shape[-2]
    parts, features = [], None
    if keep_features:
        size = (1, len(same.weight), 2 * height, 2 * x.shape[-1])
        features = torch.empty(size, memory_format=torch.channels_last)
    for start in range(0, height, STRIP_ROWS):
        stop = min(start + STRIP_ROWS, height)
        above, below = max(start - REACH, 0), min(stop + REACH, height)
        # conv1 needs one row of conv0's output on either side of the strip; rows beyond are wrong at a cut.
        first, last = max(2 * start - 1, 0), min(2 * stop + 1, 2 * height)
        y = convolve_up(x[:, :, above:below], up.weight, up.bias)[:, :, first - 2 * above : last - 2 * above]
        y = up.finish(y, slice(first, last))
        pad_rows = (1 - (2 * start - first), 1 - (last - 2 * stop))
        y = same.finish(convolve(y, same.weight, same.bias, pad_rows=pad_rows), slice(2 * start, 2 * stop))
        if features is not None:
            features[:, :, 2 * start : 2 * stop] = y
        parts.append(block.torgb(y, ws[:, 2]))
    return features, torch.cat(parts, dim=2) + upsample2d(image)


class _OneStyle:
    """A synthesis layer for one style vector, its weights modulated once for all strips."""

    def __init__(self, layer: SynthesisLayer, w: Float[Tensor, "1 w_dim"], noise: NoiseMode) -> None:
        self.weight = modulated_weight(layer.weight, layer.affine(w), gain=LEAKY_GAIN)
        self.bias = layer.bias * LEAKY_GAIN
        self.noise = layer.noise_image(noise)
        self.clamp = layer.clamp

    def finish(self, y: Float[Tensor, "1 channels height width"], rows: slice) -> Tensor:
        """Noise and activation, in place; ``rows`` tells where in the whole image ``y`` lies."""
        if self.noise is not None:
            y.add_(self.noise[rows])
        return biased_leaky_relu(y, gain=1.0, clamp=self.clamp)
