"""I3D, the network behind the Fréchet video distance (Carreira and Zisserman 2017, "Quo Vadis", section 2.4).

Two ports of DeepMind's Kinetics-400 weights measure FVD in the literature. They share the graph and the weights and
differ in the batch norms' eps and in how frames reach 224 x 224:

* VideoGPT's file ``i3d_pretrained_400.pt`` (PV3D, TATS, cd-fvd): eps 1e-5, short side to 224, centre crop;
* StyleGAN-V's ``i3d_torchscript.pt`` (3DVidGen): eps 1e-3 as in TensorFlow, the whole frame squashed to 224 x 224.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted
from portraitzoo.layers.conv_norm import ConvNorm
from portraitzoo.metrics.resizing import bilinear, channels_first, check_pixels, short_side_crop

INPUT_SIZE = 224
MIN_FRAMES = 9
"""With fewer the last pooling, two time steps wide, finds none to pool."""

MIXED_WIDTHS = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of each inception block: 1x1x1; 1x1x1, 3x3x3; 1x1x1, 3x3x3; 1x1x1 after pooling."""


class I3D(nn.Module):
    """Inflated Inception-v1: clips to the 400 logits of Kinetics.

    Args:
        bn_eps: 1e-5 (VideoGPT's port) or 1e-3 (TensorFlow, StyleGAN-V's port).
        resize: ``"crop"``: short side to 224 and centre crop (VideoGPT); ``"squash"``: whole frame (StyleGAN-V).
    """

    num_features = 400

    def __init__(self, bn_eps: float = 1e-5, resize: Literal["crop", "squash"] = "crop") -> None:
        super().__init__()
        self.resize = resize
        self.conv_1a = Unit3D(3, 64, 7, bn_eps, stride=2)
        self.conv_2b = Unit3D(64, 64, 1, bn_eps)
        self.conv_2c = Unit3D(64, 192, 3, bn_eps)
        self.mixed_3b = Mixed(192, MIXED_WIDTHS["3b"], bn_eps)
        self.mixed_3c = Mixed(256, MIXED_WIDTHS["3c"], bn_eps)
        self.mixed_4b = Mixed(480, MIXED_WIDTHS["4b"], bn_eps)
        self.mixed_4c = Mixed(512, MIXED_WIDTHS["4c"], bn_eps)
        self.mixed_4d = Mixed(512, MIXED_WIDTHS["4d"], bn_eps)
        self.mixed_4e = Mixed(512, MIXED_WIDTHS["4e"], bn_eps)
        self.mixed_4f = Mixed(528, MIXED_WIDTHS["4f"], bn_eps)
        self.mixed_5b = Mixed(832, MIXED_WIDTHS["5b"], bn_eps)
        self.mixed_5c = Mixed(832, MIXED_WIDTHS["5c"], bn_eps)
        self.pool = nn.AvgPool3d((2, INPUT_SIZE // 32, INPUT_SIZE // 32), stride=1)
        self.logits = nn.Conv3d(1024, self.num_features, 1)

    def forward(self, videos: UInt8[Tensor, "batch time height width 3"]) -> Float[Tensor, "batch 400"]:
        """RGB clips of at least 9 frames -> logits before softmax, averaged over the remaining time steps.

        Raises:
            ZooError: for other shapes or types, or fewer frames.
        """
        return self.classify(self.preprocess(videos))

    def preprocess(self, videos: UInt8[Tensor, "batch time height width 3"]) -> Float[Tensor, "batch 3 time 224 224"]:
        """Network input in [-1, 1]."""
        check_pixels(videos, "batch time height width 3", "I3D")
        frames = channels_first(videos)
        if self.resize == "crop":
            frames = short_side_crop(frames, INPUT_SIZE)
        else:
            frames = bilinear(frames, INPUT_SIZE, INPUT_SIZE)
        frames = frames / 127.5 - 1
        return frames.unflatten(0, videos.shape[:2]).transpose(1, 2)

    def classify(self, clips: Float[Tensor, "batch 3 time 224 224"]) -> Float[Tensor, "batch 400"]:
        """Logits of preprocessed clips.

        Raises:
            ZooError: for fewer than 9 frames.
        """
        if clips.shape[2] < MIN_FRAMES:
            raise ZooError(f"I3D needs clips of at least {MIN_FRAMES} frames, not {clips.shape[2]}")
        x = self.conv_1a(clips)
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.conv_2c(self.conv_2b(x))
        x = max_pool(x, (1, 3, 3), (1, 2, 2))
        x = self.mixed_3c(self.mixed_3b(x))
        x = max_pool(x, (3, 3, 3), (2, 2, 2))
        x = self.mixed_4f(self.mixed_4e(self.mixed_4d(self.mixed_4c(self.mixed_4b(x)))))
        x = max_pool(x, (2, 2, 2), (2, 2, 2))
        x = self.mixed_5c(self.mixed_5b(x))
        return self.logits(self.pool(x)).flatten(2).mean(2)


class Unit3D(nn.Module):
    """Convolution with TensorFlow's SAME padding, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, bn_eps: float, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        # With stride 1 SAME is symmetric, which the convolution does by itself; otherwise it depends on the input.
        padding = kernel // 2 if stride == 1 else 0
        convolution = PointwiseConv3d if kernel == 1 else nn.Conv3d
        self.unit = ConvNorm(convolution(in_channels, out_channels, kernel, stride, padding, bias=False), bn_eps)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch out_channels *out_space"]:
        """Padded convolution, normalised and rectified."""
        if self.stride != 1:
            x = F.pad(x, same_padding(x.shape[2:], (self.kernel,) * 3, (self.stride,) * 3))
        return F.relu(self.unit(x), inplace=True)


class PointwiseConv3d(nn.Conv3d):
    """1x1x1 convolution as the matrix product that it is, which CPUs do faster in channels-last memory."""

    def forward(self, input: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """The same values as the convolution."""
        return F.linear(input.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class Mixed(nn.Module):
    """Inception block: four branches side by side, concatenated."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int], bn_eps: float) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.branch0 = Unit3D(in_channels, a, 1, bn_eps)
        self.branch1 = nn.Sequential(Unit3D(in_channels, b, 1, bn_eps), Unit3D(b, c, 3, bn_eps))
        self.branch2 = nn.Sequential(Unit3D(in_channels, d, 1, bn_eps), Unit3D(d, e, 3, bn_eps))
        self.branch3 = Unit3D(in_channels, f, 1, bn_eps)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """Concatenation over channels in the order of the branches."""
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(pooled)], dim=1)


def same_padding(sizes: tuple[int, ...], kernels: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """TensorFlow's SAME padding as ``F.pad`` takes it (last axis first); an odd rest goes behind."""
    amounts: list[int] = []
    for size, kernel, stride in reversed(list(zip(sizes, kernels, strides, strict=True))):
        total = max(kernel - (stride if size % stride == 0 else size % stride), 0)
        amounts += [total // 2, total - total // 2]
    return amounts


def max_pool(
    x: Float[Tensor, "batch channels time height width"], kernels: tuple[int, int, int], strides: tuple[int, int, int]
) -> Float[Tensor, "batch channels out_time out_height out_width"]:
    """Max pooling with SAME padding, over space and then over time: two flat poolings are much faster than a solid one.

    Windows that reach over the border take the maximum of what is inside. TensorFlow pads zeros, which cannot win
    either, because every input here is rectified.
    """
    frames = _flat_pool(x.transpose(1, 2).flatten(0, 1), kernels[1:], strides[1:])
    x = frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
    if kernels[0] == 1:
        return x
    return _flat_pool(x.flatten(3), (kernels[0], 1), (strides[0], 1)).unflatten(3, x.shape[3:])


def _flat_pool(x: Tensor, kernels: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    (left, _, top, _) = same_padding(x.shape[2:], kernels, strides)
    return F.max_pool2d(x, kernels, strides, padding=(top, left), ceil_mode=True)


_STEM = {"conv_1a": "Conv3d_1a_7x7", "conv_2b": "Conv3d_2b_1x1", "conv_2c": "Conv3d_2c_3x3"}
_BRANCHES = {  # ours -> VideoGPT's, StyleGAN-V's
    "branch0": ("b0", "branch_0"),
    "branch1.0": ("b1a", "branch_1.0"),
    "branch1.1": ("b1b", "branch_1.1"),
    "branch2.0": ("b2a", "branch_2.0"),
    "branch2.1": ("b2b", "branch_2.1"),
    "branch3": ("b3b", "branch_3.1"),
}


def _unit(official: str, norm: str, ours: str) -> list[Rename]:
    return [
        Rename(f"{official}.conv3d.{{rest}}", f"{ours}.unit.conv.{{rest}}"),
        Rename(f"{official}.{norm}.{{rest}}", f"{ours}.unit.bn.{{rest}}"),
    ]


VIDEOGPT_NAMES = [
    Rename("logits.conv3d.{rest}", "logits.{rest}"),
    *(row for ours, stem in _STEM.items() for row in _unit(stem, "bn", ours)),
    *(
        row
        for ours, (branch, _) in _BRANCHES.items()
        for row in _unit(f"Mixed_{{stage}}.{branch}", "bn", f"mixed_{{stage}}.{ours}")
    ),
]
"""Official names -> ours, VideoGPT's port."""

STYLEGAN_V_NAMES = [
    Rename("conv3d_0c_1x1.conv3d.{rest}", "logits.{rest}"),
    *(row for ours, stem in _STEM.items() for row in _unit(stem.lower(), "batch3d", ours)),
    *(
        row
        for ours, (_, branch) in _BRANCHES.items()
        for row in _unit(f"mixed_{{stage}}.{branch}", "batch3d", f"mixed_{{stage}}.{ours}")
    ),
]
"""Official names -> ours, StyleGAN-V's port (the names of kinetics_i3d_pytorch)."""


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of ``i3d_pretrained_400.pt`` (VideoGPT) or of a state dict with StyleGAN-V's names.

    The names tell the port, and with it ``bn_eps`` and ``resize``.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    if any(name.startswith("conv3d_1a_7x7.") for name in checkpoint):
        return converted(checkpoint, I3D, {"bn_eps": 1e-3, "resize": "squash"}, STYLEGAN_V_NAMES)
    return converted(checkpoint, I3D, {"bn_eps": 1e-5, "resize": "crop"}, VIDEOGPT_NAMES)
