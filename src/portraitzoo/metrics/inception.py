"""The Inception-v3 of 2015 behind FID, KID and the Inception Score (Szegedy et al. 2016; Heusel et al. 2017).

The graph is that of Google's TensorFlow release ``inception-2015-12-05``: 1008 classes, average pools that do not count
the padding, and a max pool in the last block. Names of modules are those of torchvision and of the released file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted
from portraitzoo.layers.conv_norm import ConvNorm
from portraitzoo.metrics.resizing import bicubic_clean, bilinear, bilinear_tensorflow1, channels_first, check_pixels

INPUT_SIZE = 299
BN_EPS = 1e-3

InputPath = Literal["tensorflow", "pytorch-fid", "clean"]
Feature = Literal["64", "192", "768", "2048", "logits_unbiased", "logits"]


class Inception(nn.Module):
    """Inception-v3 of 2015: images to features.

    Args:
        input_path: how images reach the network, which changes FID by as much as methods differ:
            ``"tensorflow"``: bilinear without half-pixel shift, ``(x - 128) / 128`` (TTUR, StyleGAN, torch-fidelity);
            ``"pytorch-fid"``: bilinear with half-pixel centres, ``x / 127.5 - 1``;
            ``"clean"``: antialiased bicubic, ``(x - 128) / 128`` (clean-fid).
    """

    num_features = 2048

    def __init__(self, input_path: InputPath = "tensorflow") -> None:
        super().__init__()
        self.input_path = input_path
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
        self.MaxPool_1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.MaxPool_2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = BlockA(192, pool_width=32)
        self.Mixed_5c = BlockA(256, pool_width=64)
        self.Mixed_5d = BlockA(288, pool_width=64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, width=128)
        self.Mixed_6c = BlockC(768, width=160)
        self.Mixed_6d = BlockC(768, width=160)
        self.Mixed_6e = BlockC(768, width=192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280)
        self.Mixed_7c = BlockE(2048, last=True)
        self.fc = nn.Linear(self.num_features, 1008)

    def forward(
        self, images: UInt8[Tensor, "batch height width 3"], feature: Feature = "2048"
    ) -> Float[Tensor, "batch features"]:
        """RGB images -> features; ``feature`` as in :meth:`features`."""
        return self.features(self.preprocess(images), (feature,))[feature]

    def preprocess(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 299 299"]:
        """Network input, about [-1, 1], by ``input_path``."""
        check_pixels(images, "batch height width 3", "Inception")
        x = channels_first(images)
        if self.input_path == "pytorch-fid":
            return bilinear(x, INPUT_SIZE, INPUT_SIZE) / 127.5 - 1
        resize = bicubic_clean if self.input_path == "clean" else bilinear_tensorflow1
        return (resize(x, INPUT_SIZE, INPUT_SIZE) - 128) / 128

    def features(
        self, x: Float[Tensor, "batch 3 299 299"], wanted: tuple[Feature, ...] = ("2048",)
    ) -> dict[str, Float[Tensor, "batch features"]]:
        """Features of preprocessed images.

        ``"64"``, ``"192"``, ``"768"`` are spatial means after the first and second max pool and Mixed_6e; ``"2048"``
        (FID, KID) the global mean; ``"logits_unbiased"`` (Inception Score) and ``"logits"`` the 1008 classes without
        and with bias. The network is run no further than the last one asked for.
        """
        found: dict[str, Tensor] = {}
        before_6e = (self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b, self.Mixed_6c)
        for name, stage in (
            ("64", (self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3, self.MaxPool_1)),
            ("192", (self.Conv2d_3b_1x1, self.Conv2d_4a_3x3, self.MaxPool_2)),
            ("768", (*before_6e, self.Mixed_6d, self.Mixed_6e)),
            ("2048", (self.Mixed_7a, self.Mixed_7b, self.Mixed_7c)),
        ):
            for layer in stage:
                x = layer(x)
            found[name] = x.mean((2, 3))
            if set(wanted) <= set(found):
                break
        if "2048" in found:
            found["logits_unbiased"] = self.unbiased_logits(found["2048"])
            found["logits"] = found["logits_unbiased"] + self.fc.bias
        return {name: found[name] for name in wanted}

    def unbiased_logits(self, features: Float[Tensor, "batch 2048"]) -> Float[Tensor, "batch 1008"]:
        """Logits of the Inception Score from ``"2048"`` features: the last layer without its bias."""
        return F.linear(features, self.fc.weight)


def _shrink(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class Unit(ConvNorm):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False), BN_EPS)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Normalised, rectified convolution."""
        return F.relu(super().forward(x), inplace=True)


def _row(in_channels: int, out_channels: int) -> Unit:
    return Unit(in_channels, out_channels, (1, 7), padding=(0, 3))


def _column(in_channels: int, out_channels: int) -> Unit:
    return Unit(in_channels, out_channels, (7, 1), padding=(3, 0))


def _mean_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 x 35 block: 1x1; 5x5; two 3x3; pooling (figure 5 of the paper)."""

    def __init__(self, in_channels: int, pool_width: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(in_channels, 64, 1)
        self.branch5x5_1 = Unit(in_channels, 48, 1)
        self.branch5x5_2 = Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Unit(in_channels, 64, 1)
        self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(in_channels, pool_width, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Same size, 224 channels and those of the pooling."""
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch5x5_2(self.branch5x5_1(x)),
                self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
                self.branch_pool(_mean_pool(x)),
            ],
            dim=1,
        )


class BlockB(nn.Module):
    """35 x 35 to 17 x 17 (figure 10)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(in_channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = Unit(in_channels, 64, 1)
        self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Half the size, 480 more channels."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _shrink(x)], dim=1)


class BlockC(nn.Module):
    """17 x 17 block with factorised 7x7 convolutions (figure 6)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(in_channels, 192, 1)
        self.branch7x7_1 = Unit(in_channels, width, 1)
        self.branch7x7_2 = _row(width, width)
        self.branch7x7_3 = _column(width, 192)
        self.branch7x7dbl_1 = Unit(in_channels, width, 1)
        self.branch7x7dbl_2 = _column(width, width)
        self.branch7x7dbl_3 = _row(width, width)
        self.branch7x7dbl_4 = _column(width, width)
        self.branch7x7dbl_5 = _row(width, 192)
        self.branch_pool = Unit(in_channels, 192, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Same size, 768 channels."""
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
                self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
                self.branch_pool(_mean_pool(x)),
            ],
            dim=1,
        )


class BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Unit(in_channels, 192, 1)
        self.branch3x3_2 = Unit(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Unit(in_channels, 192, 1)
        self.branch7x7x3_2 = _row(192, 192)
        self.branch7x7x3_3 = _column(192, 192)
        self.branch7x7x3_4 = Unit(192, 192, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Half the size, 512 more channels."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), _shrink(x)], dim=1)


class BlockE(nn.Module):
    """8 x 8 block with widened branches (figure 7); the last one pools by maximum, as the TensorFlow graph does."""

    def __init__(self, in_channels: int, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.branch1x1 = Unit(in_channels, 320, 1)
        self.branch3x3_1 = Unit(in_channels, 384, 1)
        self.branch3x3_2a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Unit(in_channels, 448, 1)
        self.branch3x3dbl_2 = Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Unit(in_channels, 192, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 2048 height width"]:
        """Same size, 2048 channels."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.last else _mean_pool(x)
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(pooled),
            ],
            dim=1,
        )


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of ``pt_inception-2015-12-05-6726825d.pth`` (pytorch-fid; torch-fidelity's file is the same).

    Its names are kept.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    return converted(checkpoint, Inception, {}, [Rename("{rest}", "{rest}")])
