"""Fully connected layers: PyTorch's by the fastest way there is, and with StyleGAN2's equalised learning rate."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.activations import biased_leaky_relu

SECOND_MOMENT_EPSILON = 1e-8
IMAGES = 16
"""From this many images on PyTorch leaves 1 x 1 convolutions to oneDNN, however few threads there are."""
MIN_ROWS = 1024
"""With fewer rows bringing the weights into oneDNN's order outweighs what it saves."""


class Linear(nn.Linear):
    """PyTorch's linear layer, by the fastest way there is."""

    def forward(self, input: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Apply the layer."""
        if convolution_pays_off(input):
            return linear_by_convolution(input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)


def linear_by_convolution(
    x: Float[Tensor, "*batch in_features"],
    weight: Float[Tensor, "out_features in_features"],
    bias: Float[Tensor, " out_features"] | None = None,
) -> Float[Tensor, "*batch out_features"]:
    """``F.linear`` as a 1 x 1 convolution over channels-last images, which oneDNN does.

    PyTorch leaves matrix products in float32 to MKL, which takes a fifth longer on a processor that is not Intel's.

    Args:
        x: contiguous, its number of rows (of vectors, that is) a multiple of ``IMAGES``.
        weight: as that of a linear layer.
        bias: added per output.
    """
    images = x.reshape(IMAGES, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
    return F.conv2d(images, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def convolution_pays_off(x: Float[Tensor, "*batch in_features"]) -> bool:
    """Whether :func:`linear_by_convolution` is usable (no gradients, float32) and, on this kind of device, faster."""
    rows = x.shape[:-1].numel()
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and x.is_contiguous()
        and rows >= MIN_ROWS
        and rows % IMAGES == 0
    )


def normalise_second_moment(x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
    """Scale each vector to mean square 1 (StyleGAN2, the normalisation of z)."""
    return x * (x.square().mean(dim=-1, keepdim=True) + SECOND_MOMENT_EPSILON).rsqrt()


class FullyConnected(nn.Module):
    """Affine layer whose weights are stored at unit variance and scaled by He's constant at run time.

    Equalised learning rate (Karras et al., 2018, section 4.1): the stored weight is N(0, 1) / ``lr_multiplier``, the
    applied one ``weight * lr_multiplier / sqrt(in_features)``; the bias is multiplied by ``lr_multiplier``.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        activation: ``linear``, or ``lrelu``: leaky ReLU of slope 0.2 with gain sqrt(2).
        lr_multiplier: how much slower than the optimiser's rate this layer learns.
        bias_init: initial value of the stored bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: Literal["linear", "lrelu"] = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))
        self.activation = activation
        self.lr_multiplier = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """Apply the layer in the input's dtype."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = (self.bias * self.lr_multiplier).to(x.dtype)
        y = F.linear(x, weight, bias)
        return y if self.activation == "linear" else biased_leaky_relu(y)
