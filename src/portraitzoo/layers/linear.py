"""Fully connected layers with StyleGAN2's equalised learning rate."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.activations import biased_leaky_relu

SECOND_MOMENT_EPSILON = 1e-8


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
