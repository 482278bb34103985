"""Modulated convolutions and the layers made of them (Karras et al., 2020, "StyleGAN2", section 2.2)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.activations import LEAKY_GAIN, biased_leaky_relu
from portraitzoo.layers.convolution import convolve, convolve_up
from portraitzoo.layers.linear import FullyConnected

DEMODULATION_EPSILON = 1e-8
NoiseMode = Literal["const", "random", "none"]
"""``const``: the layer's own noise image; ``random``: fresh noise per sample; ``none``: no noise."""


def modulated_conv2d(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels kernel kernel"],
    styles: Float[Tensor, "batch in_channels"],
    *,
    demodulate: bool = True,
    up: Literal[1, 2] = 1,
    gain: float = 1.0,
    bias: Float[Tensor, " out_channels"] | None = None,
) -> Float[Tensor, "batch out_channels out_height out_width"]:
    """Convolution whose weights are scaled by per-sample styles (StyleGAN2, equations 1 to 3).

    With s the styles, the effective weight is ``w' = w * s``, and with ``demodulate`` each output channel is divided
    by ``sqrt(sum(w'^2) + 1e-8)``. With ``up`` 2 a stride-2 transposed convolution is followed by the binomial filter,
    which equals zero insertion, filter and a convolution with the flipped kernel.

    Args:
        x: input; its dtype (float32 or a lower one) is that of the computation.
        weight: shared weights, square kernel of odd size.
        styles: scale of each input channel.
        demodulate: whether output channels are normalised.
        up: 2 doubles the size.
        gain: factor of the result, before the bias.
        bias: added per output channel.

    Returns:
        Result of the input's size, or twice that.
    """
    if x.dtype != torch.float32 and demodulate:
        # Half precision overflows beyond 65504: demodulation makes any scale of weights and styles harmless to remove.
        limit = weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel())
        weight = weight / limit
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    apply = convolve if up == 1 else convolve_up
    if len(x) == 1 and not torch.is_grad_enabled():
        # One sample: scaling the weights is cheaper than two passes over the activations.
        weight = modulated_weight(weight, styles, demodulate=demodulate, gain=gain).to(x.dtype)
        return apply(x, weight, None if bias is None else bias.to(x.dtype))
    y = apply(x * styles.to(x.dtype)[:, :, None, None], weight.to(x.dtype))
    out_gain = demodulation(weight, styles) * gain if demodulate else gain
    if isinstance(out_gain, Tensor):
        y = y * out_gain.to(x.dtype)[:, :, None, None]
    elif out_gain != 1:
        y = y * out_gain
    return y if bias is None else y + bias.to(x.dtype)[:, None, None]


def demodulation(
    weight: Float[Tensor, "out_channels in_channels kernel kernel"], styles: Float[Tensor, "batch in_channels"]
) -> Float[Tensor, "batch out_channels"]:
    """Factors that bring each output channel to unit variance (StyleGAN2, equation 2)."""
    # The sum over (i, kh, kw) of (w * s)^2, without w * s for every sample.
    energy = styles.square() @ weight.square().sum(dim=(2, 3)).T
    return (energy + DEMODULATION_EPSILON).rsqrt()


def modulated_weight(
    weight: Float[Tensor, "out_channels in_channels kernel kernel"],
    styles: Float[Tensor, "1 in_channels"],
    *,
    demodulate: bool = True,
    gain: float = 1.0,
) -> Float[Tensor, "out_channels in_channels kernel kernel"]:
    """Weights of one sample: scaled by its styles, demodulated, times ``gain`` (StyleGAN2, equations 1 to 3)."""
    scaled = weight * styles[0, None, :, None, None]
    if demodulate:
        energy = scaled.square().sum(dim=(1, 2, 3), keepdim=True)
        return scaled * ((energy + DEMODULATION_EPSILON).rsqrt() * gain)
    return scaled if gain == 1 else scaled * gain


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU with gain sqrt(2), clamp.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: width of the style vector.
        up: 2 doubles the size.
        noise_resolution: side of the output if the layer adds noise; None for a layer without noise.
        clamp: largest magnitude of the output; None for no limit.
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        *,
        up: Literal[1, 2] = 1,
        noise_resolution: int | None = None,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.clamp, self.has_noise = up, clamp, noise_resolution is not None
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if noise_resolution is not None:
            self.noise_strength = nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", torch.randn(noise_resolution, noise_resolution))

    def forward(
        self,
        x: Float[Tensor, "batch in_channels height width"],
        w: Float[Tensor, "batch w_dim"],
        noise: NoiseMode = "const",
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Apply the layer; ``noise`` is ignored by a layer without noise."""
        # Leaky ReLU is homogeneous: its gain may go into the weights, bias and noise, all smaller than the features.
        y = modulated_conv2d(x, self.weight, self.affine(w), up=self.up, gain=LEAKY_GAIN, bias=self.bias * LEAKY_GAIN)
        image = self.noise_image(noise, len(x))
        if image is not None:
            image = image.to(y.dtype)
            y = y + image if torch.is_grad_enabled() else y.add_(image)
        return biased_leaky_relu(y, gain=1.0, clamp=self.clamp)

    def noise_image(self, noise: NoiseMode, batch: int = 1) -> Float[Tensor, "*batch 1 height width"] | None:
        """What is added before the activation; None for nothing."""
        if not self.has_noise or noise == "none":
            return None
        image = self.noise_const
        if noise == "random":
            image = torch.randn(batch, 1, *image.shape, dtype=image.dtype, device=image.device)
        return image * (self.noise_strength * LEAKY_GAIN)


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution without demodulation, bias, clamp: from features to image (or plane) channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: width of the style vector.
        clamp: largest magnitude of the output; None for no limit.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.style_gain = 1 / math.sqrt(in_channels)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Apply the layer."""
        styles = self.affine(w) * self.style_gain
        y = modulated_conv2d(x, self.weight, styles, demodulate=False, bias=self.bias)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class ModulatedLinear(nn.Module):
    """Modulated 1 x 1 convolution over points: what :class:`SynthesisLayer` and :class:`ToRGB` are to images.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        w_dim: width of the style vector.
        activation: ``linear``, or ``lrelu``: leaky ReLU of slope 0.2 with gain sqrt(2).
        demodulate: whether outputs are normalised; if not, styles are divided by sqrt(in_features).
        clamp: largest magnitude of the output; None for no limit.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        w_dim: int,
        *,
        activation: Literal["linear", "lrelu"] = "linear",
        demodulate: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.demodulate, self.clamp = activation, demodulate, clamp
        self.affine = FullyConnected(w_dim, in_features, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def effective(
        self, w: Float[Tensor, "batch w_dim"], gain: float | Float[Tensor, ""] = 1.0
    ) -> tuple[Float[Tensor, "batch in_features out_features"], Float[Tensor, " out_features"]]:
        """Weights and bias of each sample: styles, demodulation, the activation's gain.

        Args:
            w: style vectors.
            gain: factor of the weights.
        """
        styles = self.affine(w)
        weight = self.weight * styles[:, None]
        if self.demodulate:
            weight = weight * demodulation(self.weight[..., None, None], styles)[..., None]
        else:
            gain = gain / math.sqrt(self.weight.shape[1])
        after = LEAKY_GAIN if self.activation == "lrelu" else 1.0
        return (weight * (gain * after)).mT, self.bias * after

    def activate(self, y: Float[Tensor, "*batch out_features"]) -> Float[Tensor, "*batch out_features"]:
        """What follows the product with :meth:`effective` weights; overwrites ``y`` without gradients."""
        if self.activation == "lrelu":
            return biased_leaky_relu(y, gain=1.0, clamp=self.clamp)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)

    def forward(
        self, x: Float[Tensor, "batch points in_features"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch points out_features"]:
        """Apply the layer."""
        weight, bias = self.effective(w)
        return self.activate(torch.baddbmm(bias.to(x.dtype), x, weight.to(x.dtype)))
