"""Convolutions that keep or double the size: those of StyleGAN2's generator, on weights that are modulated already."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers import winograd
from portraitzoo.layers.linear import convolution_pays_off, linear_by_convolution
from portraitzoo.layers.resampling import binomial_filter

MIN_CHANNELS = 64
"""With fewer channels 1 x 1 convolutions are as fast by PyTorch's own way."""


def convolve(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels kernel kernel"],
    bias: Float[Tensor, " out_channels"] | None = None,
    *,
    pad_rows: tuple[int, int] | None = None,
) -> Float[Tensor, "batch out_channels out_height width"]:
    """Correlation that keeps the size, by zero padding.

    Args:
        x: input.
        weight: kernels of odd size.
        bias: added per output channel.
        pad_rows: rows of zeros above and below, where fewer than usual are wanted (the input has the others).
    """
    half = weight.shape[-1] // 2
    if winograd.pays_off(x, weight):
        return winograd.conv3x3(x, weight, bias, pad_rows=(half, half) if pad_rows is None else pad_rows)
    if pad_rows is None:
        pixels = x.movedim(1, -1)
        if not half and min(weight.shape[:2]) >= MIN_CHANNELS and convolution_pays_off(pixels):
            return linear_by_convolution(pixels, weight[:, :, 0, 0], bias).movedim(-1, 1)
        return F.conv2d(x, weight, bias, padding=half)
    return F.conv2d(F.pad(x, (0, 0, *pad_rows)), weight, bias, padding=(0, half))


def convolve_up(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels kernel kernel"],
    bias: Float[Tensor, " out_channels"] | None = None,
) -> Float[Tensor, "batch out_channels 2*height 2*width"]:
    """Stride-2 transposed convolution, then the binomial filter of gain 4: doubles the size.

    Equals zero insertion, filter and a convolution with the flipped kernel.
    """
    return binomial_filter(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0, bias=bias)


class Convolution(nn.Conv2d):
    """PyTorch's 3 x 3 convolution that keeps the size, by the fastest way there is.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Apply the layer."""
        return convolve(input, self.weight, self.bias)
