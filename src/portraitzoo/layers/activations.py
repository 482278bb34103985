"""StyleGAN2's activation: bias, leaky ReLU, gain and clamp."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEAKY_SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2)
"""Keeps the second moment of a unit-variance input (Karras et al., 2018)."""


def biased_leaky_relu(
    x: Float[Tensor, "batch channels *size"],
    bias: Float[Tensor, " channels"] | None = None,
    *,
    gain: float = LEAKY_GAIN,
    clamp: float | None = None,
) -> Float[Tensor, "batch channels *size"]:
    """``clamp(gain * leaky_relu(x + bias))`` with slope 0.2 and values kept within ``[-clamp, clamp]``.

    Without gradients ``x`` is overwritten, so the caller must own it: at 512 x 512 pixels each fresh tensor costs more
    time than the arithmetic.
    """
    if bias is not None:
        bias = bias.to(x.dtype).reshape(-1, *(1 for _ in x.shape[2:]))
    if torch.is_grad_enabled():
        y = F.leaky_relu(x if bias is None else x + bias, LEAKY_SLOPE)
        y = y if gain == 1 else y * gain
        return y if clamp is None else y.clamp(-clamp, clamp)
    if bias is not None:
        x.add_(bias)
    F.leaky_relu_(x, LEAKY_SLOPE)
    if gain != 1:
        x.mul_(gain)
    return x if clamp is None else x.clamp_(-clamp, clamp)
