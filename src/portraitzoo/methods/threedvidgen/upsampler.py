"""The upsampler of StyleNeRF (Gu et al., ICLR 2022, section 3.3): 1 x 1 convolutions between learned enlargements.

Without 3 x 3 convolutions a pixel hardly sees its neighbours, which keeps views consistent. Channels come last, so that
every convolution is one matrix product over pixels. The enlargement is linear but for one activation in the middle of
its adapter; what is linear is done at the low resolution, or with the adapter's few channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.activations import LEAKY_GAIN, biased_leaky_relu
from portraitzoo.layers.linear import FullyConnected
from portraitzoo.layers.modulation import ModulatedLinear
from portraitzoo.layers.resampling import upsample2d

ACTIVATION_LIMIT = 256.0
MAGNITUDE_DECAY = 0.999
ADAPTER_SHRINK = 4
"""The adapter's hidden layer has this many times fewer channels."""

Enlargement = Literal["neighbours", "pixelshuffle"]
"""Between the pixels of an enlarged map the adapter sees means of two neighbours, or makes new ones (pixel shuffle)."""


class UpsamplerLayer(nn.Module):
    """Modulated product over pixels whose input is scaled to unit magnitude, activation, clamp.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: width of the style vector.
    """

    magnitude: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.mix = ModulatedLinear(in_channels, out_channels, w_dim, activation="lrelu", clamp=ACTIVATION_LIMIT)
        self.register_buffer("magnitude", torch.ones([]))

    def effective(
        self, w: Float[Tensor, "videos w_dim"]
    ) -> tuple[Float[Tensor, "videos in_channels out_channels"], Float[Tensor, " out_channels"]]:
        """Weights and bias for some style vectors, the scale of the input and the gain of the activation included."""
        return self.mix.effective(w, gain=self.magnitude.rsqrt())

    def forward(
        self, x: Float[Tensor, "videos *pixels in_channels"], w: Float[Tensor, "videos w_dim"]
    ) -> Float[Tensor, "videos *pixels out_channels"]:
        """Apply the layer; in training, the average magnitude moves first."""
        self.watch(x)
        weight, bias = self.effective(w)
        return self.mix.activate(multiply(x, weight, bias))

    def watch(self, x: Float[Tensor, "videos *pixels in_channels"]) -> None:
        """In training, move the average square of the input towards this one."""
        if self.training:
            self.magnitude.copy_(x.detach().float().square().mean().lerp(self.magnitude, MAGNITUDE_DECAY))


class EnlargingLayer(UpsamplerLayer):
    """An upsampler layer that doubles the size.

    Nearest-neighbour enlargement plus an adapter, both low-passed with the binomial filter, which is not centred: as in
    the released networks, the result lies half a pixel of the output to the lower right.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        w_dim: width of the style vector.
        mode: what the adapter sees and makes.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, mode: Enlargement) -> None:
        super().__init__(in_channels, out_channels, w_dim)
        self.mode = mode
        seen, made = (2, 1) if mode == "neighbours" else (1, 4)
        hidden = out_channels // ADAPTER_SHRINK
        self.adapter = nn.Sequential(
            FullyConnected(seen * out_channels, hidden, activation="lrelu"),
            FullyConnected(hidden, made * out_channels),
        )

    def forward(
        self, x: Float[Tensor, "videos frames height width in_channels"], w: Float[Tensor, "videos w_dim"]
    ) -> Float[Tensor, "videos frames 2*height 2*width out_channels"]:
        """Apply the layer to images."""
        self.watch(x)
        weight, bias = self.effective(w)
        y = self.enlarge(multiply(x, weight), LEAKY_GAIN)
        return self.mix.activate(y + bias.to(y.dtype))

    def pointwise(
        self, x: Float[Tensor, "videos *pixels in_channels"], w: Float[Tensor, "videos w_dim"]
    ) -> Float[Tensor, "videos *pixels out_channels"]:
        """The layer without enlargement, for single samples."""
        return super().forward(x, w)

    def enlarge(
        self, x: Float[Tensor, "*batch height width channels"], scale: float = 1.0
    ) -> Float[Tensor, "*batch 2*height 2*width channels"]:
        """Low-passed sum of the enlarged map and the adapter's answer to it.

        Args:
            x: a map times ``scale``, which the result is multiplied by as well.
            scale: any positive number.
        """
        first, second = (layer for layer in self.adapter if isinstance(layer, FullyConnected))
        mix = (first.weight * (first.weight_gain * LEAKY_GAIN)).T.to(x.dtype)
        bias = (first.bias * (LEAKY_GAIN * scale)).to(x.dtype)
        back = (second.weight * second.weight_gain).T.to(x.dtype)
        constant = (second.bias * scale).to(x.dtype)
        if self.mode == "pixelshuffle":
            made = biased_leaky_relu(x @ mix + bias, gain=1.0) @ back + constant
            phases = made.unflatten(-1, (-1, 2, 2)).movedim((-2, -1), (-4, -2))  # height 2 width 2 channels
            return low_pass(phases.add(x[..., :, None, :, None, :]).flatten(-5, -4).flatten(-3, -2))
        channels = x.shape[-1]
        # The adapter's first layer commutes with enlarging, its second with the low-pass.
        own, around = x @ mix[:channels] + bias, x @ mix[channels:]
        hidden = biased_leaky_relu(neighbours(around, own), gain=1.0)
        return enlarge_smoothly(x + constant) + low_pass(hidden) @ back


class UpsamplerBlock(nn.Module):
    """Double the size, refine, and add to the image (StyleGAN2's skip architecture).

    Args:
        in_channels: channels of the features that come in.
        out_channels: channels of the features that go out.
        w_dim: width of the style vectors.
        mode: how the size is doubled.

    Attributes:
        low_precision: dtype of the products on a GPU (``torch.float16``, say); None for float32.
    """

    NUM_CONVS = 2

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, mode: Enlargement) -> None:
        super().__init__()
        self.low_precision: torch.dtype | None = None
        self.conv0 = EnlargingLayer(in_channels, out_channels, w_dim, mode)
        self.conv1 = UpsamplerLayer(out_channels, out_channels, w_dim)
        self.torgb = ModulatedLinear(out_channels, 3, w_dim, demodulate=False, clamp=ACTIVATION_LIMIT)

    def forward(
        self,
        x: Float[Tensor, "videos frames height width in_channels"],
        image: Float[Tensor, "videos frames height width 3"],
        ws: Float[Tensor, "videos 3 w_dim"],
    ) -> tuple[
        Float[Tensor, "videos frames 2*height 2*width out_channels"], Float[Tensor, "videos frames 2*height 2*width 3"]
    ]:
        """Features and image of twice the size.

        Args:
            x: features.
            image: image, float32.
            ws: style vectors of both layers and of the image's.
        """
        x = self.conv1(self.conv0(self._cast(x), ws[:, 0]), ws[:, 1])
        below = upsample2d(image.flatten(0, 1).movedim(-1, 1)).movedim(1, -1).unflatten(0, image.shape[:2])
        return x, below + self._to_rgb(x, ws)

    def pointwise(
        self,
        x: Float[Tensor, "videos points in_channels"],
        color: Float[Tensor, "videos points 3"],
        ws: Float[Tensor, "videos 3 w_dim"],
    ) -> tuple[Float[Tensor, "videos points out_channels"], Float[Tensor, "videos points 3"]]:
        """The block for single samples of the volume: nothing is enlarged."""
        x = self.conv1(self.conv0.pointwise(self._cast(x), ws[:, 0]), ws[:, 1])
        return x, color + self._to_rgb(x, ws)

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.low_precision if self.low_precision and x.is_cuda else torch.float32)

    def _to_rgb(self, x: Tensor, ws: Tensor) -> Tensor:
        return self.torgb.activate(multiply(x, *self.torgb.effective(ws[:, 2])).float())


def multiply(
    x: Float[Tensor, "videos *pixels in_channels"],
    weight: Float[Tensor, "videos in_channels out_channels"],
    bias: Float[Tensor, " out_channels"] | None = None,
) -> Float[Tensor, "videos *pixels out_channels"]:
    """Product over the channels of each pixel, with weights of its video, in the dtype of ``x``."""
    flat, weight = x.flatten(1, -2), weight.to(x.dtype)
    y = torch.bmm(flat, weight) if bias is None else torch.baddbmm(bias.to(x.dtype), flat, weight)
    return y.unflatten(1, x.shape[1:-1])


def neighbours(
    around: Float[Tensor, "*batch height width channels"], own: Float[Tensor, "*batch height width channels"]
) -> Float[Tensor, "*batch 2*height 2*width channels"]:
    """Enlarged map: each of a pixel's four parts is the pixel's ``own`` plus the mean of the two values ``around`` that
    it borders on (left and upper for the upper left part, and so on; zeros outside).
    """
    half = around / 2
    padded = nn.functional.pad(half, (0, 0, 1, 1, 1, 1))
    up, down = padded[..., :-2, 1:-1, :], padded[..., 2:, 1:-1, :]
    left, right = padded[..., 1:-1, :-2, :], padded[..., 1:-1, 2:, :]
    rows = [torch.stack([own + side + vertical for side in (left, right)], dim=-2) for vertical in (up, down)]
    return torch.stack(rows, dim=-4).flatten(-5, -4).flatten(-3, -2)


def low_pass(x: Float[Tensor, "*batch height width channels"]) -> Float[Tensor, "*batch height width channels"]:
    """Binomial filter [1, 3, 3, 1] / 8 along both axes, two zeros before and one after."""
    for axis in (-2, -3):
        size = x.shape[axis]
        padded = nn.functional.pad(x, (0, 0, 2, 1) if axis == -2 else (0, 0, 0, 0, 2, 1))
        a, b, c, d = (padded.narrow(axis, start, size) for start in range(4))
        x = (a + d + 3 * (b + c)) / 8
    return x


def enlarge_smoothly(
    x: Float[Tensor, "*batch height width channels"],
) -> Float[Tensor, "*batch 2*height 2*width channels"]:
    """Nearest-neighbour enlargement, then :func:`low_pass`, in one go."""
    for axis in (-2, -3):
        size = x.shape[axis]
        padded = nn.functional.pad(x, (0, 0, 1, 1) if axis == -2 else (0, 0, 0, 0, 1, 1))
        before, own, after = (padded.narrow(axis, start, size) for start in range(3))
        even, odd = (before + own) / 2, (before + 6 * own + after) / 8
        x = torch.stack([even, odd], dim=axis).flatten(axis - 1, axis)
    return x
