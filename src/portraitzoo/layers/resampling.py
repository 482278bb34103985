"""Resampling with StyleGAN2's binomial filter [1, 3, 3, 1], and antialiased resizing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)


def binomial_kernel(like: Tensor, gain: float = 1.0) -> Float[Tensor, "4 4"]:
    """Separable 4 x 4 low-pass filter of sum ``gain``, in the dtype and on the device of ``like``."""
    taps = torch.tensor(TAPS, dtype=like.dtype, device=like.device)
    return torch.outer(taps, taps) * (gain / sum(TAPS) ** 2)


def binomial_filter(
    x: Float[Tensor, "batch channels height width"],
    *,
    padding: int,
    stride: int = 1,
    gain: float = 1.0,
    bias: Float[Tensor, " channels"] | None = None,
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Low-pass every channel: zero padding on all sides, 4 x 4 filter of sum ``gain``, every ``stride``-th sample.

    The bias, if there is one, is added per channel.
    """
    channels = x.shape[1]
    kernel = binomial_kernel(x, gain).expand(channels, 1, -1, -1)
    return F.conv2d(x, kernel, bias, stride=stride, padding=padding, groups=channels)


def upsample2d(
    x: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Double the size: zero insertion and the binomial filter of gain 4 (the skip path of StyleGAN2's generator).

    Away from the border this is bilinear interpolation; outside the image there are zeros. PyTorch's interpolation
    repeats the border instead, so it runs on a padded image.
    """
    padded = F.pad(x, (1, 1, 1, 1))
    return F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[:, :, 2:-2, 2:-2]


def resize(x: Float[Tensor, "batch channels height width"], size: int) -> Float[Tensor, "batch channels {size} {size}"]:
    """Bilinear resize to ``size`` pixels a side, antialiased when it shrinks (EG3D's resizing of raw images)."""
    if x.shape[-2:] == (size, size):
        return x
    shrinks = size < x.shape[-1]  # antialiasing changes nothing otherwise, and is slower
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
