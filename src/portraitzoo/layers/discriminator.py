"""Parts of StyleGAN2's discriminators, residual and with skips (Karras et al., 2020, section 4.1)."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.activations import LEAKY_GAIN, biased_leaky_relu
from portraitzoo.layers.linear import FullyConnected
from portraitzoo.layers.resampling import binomial_filter

RESIDUAL_GAIN = math.sqrt(0.5)
"""Both branches of a residual block are scaled so that their sum keeps the variance."""


def minibatch_stddev(
    x: Float[Tensor, "batch channels height width"], group_size: int = 4
) -> Float[Tensor, "batch channels+1 height width"]:
    """Append a channel that tells how much a group of samples varies (Karras et al., 2018, section 3).

    Samples n and n + batch / group share a group. The batch is either smaller than ``group_size`` or divisible by it.

    Raises:
        ValueError: if the groups do not come out even.
    """
    batch, _, height, width = x.shape
    group = min(group_size, batch)
    if batch % group:
        raise ValueError(f"minibatch standard deviation needs a multiple of {group} samples, not {batch}")
    grouped = x.reshape(group, batch // group, *x.shape[1:]).float()
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    extra = deviation.repeat(group).to(x.dtype)[:, None, None, None].expand(-1, 1, height, width)
    return torch.cat([x, extra], dim=1)


def stack_pair(
    frames: Float[Tensor, "batch 2 3 height width"], times: Float[Tensor, "batch 2"]
) -> Float[Tensor, "batch 7 height width"]:
    """Both frames and a constant map of the time difference, as channels (DIGAN's input of a video discriminator)."""
    elapsed = (times[:, 1] - times[:, 0])[:, None, None, None].expand(-1, 1, *frames.shape[-2:])
    return torch.cat([frames.flatten(1, 2), elapsed], dim=1)


class ConvLayer(nn.Module):
    """Convolution with equalised learning rate, optional halving of the size, bias, activation, clamp.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, 1 or 3.
        down: 2 applies the binomial filter and halves the size.
        activation: ``linear``, or ``lrelu``: leaky ReLU of slope 0.2 with gain sqrt(2).
        bias: whether there is a bias.
        gain: factor of the output, beside the activation's own.
        clamp: largest magnitude of the output at gain 1; None for no limit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Literal[1, 3],
        *,
        down: Literal[1, 2] = 1,
        activation: Literal["linear", "lrelu"] = "lrelu",
        bias: bool = True,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.down, self.activation = down, activation
        self.clamp = None if clamp is None else clamp * gain
        self.gain = gain * (LEAKY_GAIN if activation == "lrelu" else 1.0)
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels out_height out_width"]:
        """Apply the layer in the input's dtype."""
        # Both activations are homogeneous: the gain goes into weights and bias.
        weight = (self.weight * (self.weight_gain * self.gain)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * self.gain).to(x.dtype)
        kernel = weight.shape[-1]
        if self.down == 1:
            y = F.conv2d(x, weight, bias, padding=kernel // 2)
        elif kernel == 1:
            y = F.conv2d(binomial_filter(x, padding=1, stride=2), weight, bias)
        else:
            y = F.conv2d(binomial_filter(x, padding=2), weight, bias, stride=2)
        if self.activation == "lrelu":
            return biased_leaky_relu(y, gain=1.0, clamp=self.clamp)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size: ``conv0``, ``conv1`` (down) beside ``skip`` (down, 1 x 1).

    Args:
        in_channels: channels of the features that come in.
        out_channels: channels of the features that go out.
        image_channels: for the first block: channels of the image, which ``fromrgb`` turns into features; else 0.
        clamp: largest magnitude of the features; None for no limit.

    Attributes:
        low_precision: dtype of the convolutions on a GPU; None for float32.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, image_channels: int = 0, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.low_precision: torch.dtype | None = None
        self.fromrgb = ConvLayer(image_channels, in_channels, 1, clamp=clamp) if image_channels else None
        self.conv0 = ConvLayer(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = ConvLayer(in_channels, out_channels, 3, down=2, gain=RESIDUAL_GAIN, clamp=clamp)
        self.skip = ConvLayer(in_channels, out_channels, 1, down=2, activation="linear", bias=False, gain=RESIDUAL_GAIN)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels height//2 width//2"]:
        """Apply the block."""
        dtype = self.low_precision if self.low_precision and x.is_cuda else torch.float32
        x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        return self.skip(x) + self.conv1(self.conv0(x))


class SkipDiscriminatorBlock(nn.Module):
    """Block that halves the size of features and image: the image is looked at anew at every size.

    Args:
        in_channels: channels of the features that come in.
        out_channels: channels of the features that go out.
        image_channels: channels of the image.
        clamp: largest magnitude of the features; None for no limit.

    Attributes:
        low_precision: dtype of the convolutions on a GPU; None for float32.
    """

    def __init__(self, in_channels: int, out_channels: int, image_channels: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.low_precision: torch.dtype | None = None
        self.fromrgb = ConvLayer(image_channels, in_channels, 1, clamp=clamp)
        self.conv0 = ConvLayer(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = ConvLayer(in_channels, out_channels, 3, down=2, clamp=clamp)

    def forward(
        self,
        x: Float[Tensor, "batch in_channels height width"] | None,
        image: Float[Tensor, "batch image_channels height width"],
    ) -> tuple[
        Float[Tensor, "batch out_channels height//2 width//2"], Float[Tensor, "batch image_channels height//2 width//2"]
    ]:
        """Features (None for the first block) and image at half the size."""
        dtype = self.low_precision if self.low_precision and image.is_cuda else torch.float32
        seen = self.fromrgb(image.to(dtype=dtype, memory_format=torch.channels_last))
        x = seen if x is None else x.to(dtype) + seen
        return self.conv1(self.conv0(x)), binomial_filter(image, padding=1, stride=2)


class DiscriminatorEpilogue(nn.Module):
    """From the last features to one logit per sample: minibatch deviation, convolution, two layers, projection.

    Args:
        channels: channels of the features.
        resolution: side of the features.
        condition_dim: width of the condition on which the output is projected; 0 for an unconditional logit.
        image_channels: channels of the image that is looked at once more (skip architecture); 0 for none.
        group_size: samples that share a minibatch deviation.
        clamp: largest magnitude of the features; None for no limit.
    """

    def __init__(
        self,
        channels: int,
        *,
        resolution: int,
        condition_dim: int,
        image_channels: int = 0,
        group_size: int = 4,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.group_size = group_size
        self.fromrgb = ConvLayer(image_channels, channels, 1) if image_channels else None
        self.conv = ConvLayer(channels + 1, channels, 3, clamp=clamp)
        self.fc = FullyConnected(channels * resolution**2, channels, activation="lrelu")
        self.out = FullyConnected(channels, condition_dim or 1)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        condition: Float[Tensor, "batch condition_dim"] | None = None,
        image: Float[Tensor, "batch image_channels height width"] | None = None,
    ) -> Float[Tensor, "batch 1"]:
        """Logits; positive means real."""
        x = x.float()
        if self.fromrgb is not None:
            x = x + self.fromrgb(image)
        x = self.conv(minibatch_stddev(x, self.group_size))
        x = self.out(self.fc(x.flatten(1)))
        if condition is None:
            return x
        return (x * condition).sum(dim=1, keepdim=True) / math.sqrt(condition.shape[1])
