"""Face recognition networks of the ArcFace lineage (Deng et al. 2019, section 3.2), for measuring identity.

``IRSE50`` is InsightFace_Pytorch's ``model_ir_se50.pth`` (PV3D); ``IResNet`` is insightface's arcface_torch
(Portrait4D, 3DFaceShop, Deep3DFaceRecon). Both look at RGB faces of 112 x 112 in [-1, 1]. They resemble each other and
differ in where norms, strides and shortcuts sit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted
from portraitzoo.layers.conv_norm import ConvNorm, FixedNorm
from portraitzoo.metrics.resizing import bilinear, channels_first, check_pixels

INPUT_SIZE = 112
EMBEDDING = 512
WIDTHS = (64, 128, 256, 512)
_RESIDUAL_SCALE = 0.4  # of new blocks: keeps the sum of many residual branches bounded before any weights are loaded


def preprocess(images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 112 112"]:
    """Whole frames, squashed bilinearly to 112 x 112 (half-pixel centres, no antialias), in [-1, 1].

    Raises:
        ZooError: for other shapes or types.
    """
    check_pixels(images, "batch height width 3", "face recognition")
    return bilinear(channels_first(images), INPUT_SIZE, INPUT_SIZE) / 127.5 - 1


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)


class IRSE50(nn.Module):
    """Improved residual network of 50 layers with squeeze and excitation; unit embeddings."""

    num_features = EMBEDDING
    DEPTHS = (3, 4, 14, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(_conv(3, WIDTHS[0], 3))
        self.stem_activation = nn.PReLU(WIDTHS[0])
        blocks: list[nn.Module] = []
        width = WIDTHS[0]
        for out, depth in zip(WIDTHS, self.DEPTHS, strict=True):
            blocks += [IRSEBlock(width if i == 0 else out, out, stride=2 if i == 0 else 1) for i in range(depth)]
            width = out
        self.body = nn.Sequential(*blocks)
        self.norm = FixedNorm(width)
        self.fc = nn.Linear(width * 7 * 7, EMBEDDING)
        self.embedding_norm = FixedNorm(EMBEDDING)

    def forward(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 512"]:
        """RGB images -> embeddings of unit length."""
        return self.embed(preprocess(images))

    def embed(self, faces: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch 512"]:
        """Embeddings of unit length of preprocessed faces."""
        x = self.body(self.stem_activation(self.stem(faces)))
        x = self.embedding_norm(self.fc(self.norm(x).flatten(1)))
        return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


class IRSEBlock(nn.Module):
    """Norm, two 3x3 convolutions (the second strided), squeeze and excitation; shortcut by subsampling if it can."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = FixedNorm(in_channels)
        self.conv1 = _conv(in_channels, out_channels, 3)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = ConvNorm(_conv(out_channels, out_channels, 3, stride), scale=_RESIDUAL_SCALE)
        self.se = SqueezeExcitation(out_channels)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = ConvNorm(_conv(in_channels, out_channels, 1, stride))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Residual plus shortcut, without activation."""
        shortcut = x[..., :: self.stride, :: self.stride] if self.shortcut is None else self.shortcut(x)
        return self.se(self.conv2(self.prelu(self.conv1(self.norm(x))))) + shortcut


class SqueezeExcitation(nn.Module):
    """Channel weights from the spatial mean (Hu et al. 2018), reduction 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = _conv(channels, channels // 16, 1)
        self.fc2 = _conv(channels // 16, channels, 1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Input with its channels scaled by numbers in (0, 1)."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class IResNet(nn.Module):
    """Residual network of arcface_torch; embeddings are NOT of unit length.

    Args:
        depths: blocks of the four stages: (2, 2, 2, 2) is iresnet18, (3, 4, 14, 3) iresnet50.
    """

    num_features = EMBEDDING

    def __init__(self, depths: Sequence[int] = (3, 4, 14, 3)) -> None:
        super().__init__()
        self.stem = ConvNorm(_conv(3, WIDTHS[0], 3))
        self.prelu = nn.PReLU(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], depths[0])
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], depths[1])
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], depths[2])
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], depths[3])
        self.norm = FixedNorm(WIDTHS[3])
        self.fc = nn.Linear(WIDTHS[3] * 7 * 7, EMBEDDING)
        self.embedding_norm = FixedNorm(EMBEDDING)

    def forward(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 512"]:
        """RGB images -> embeddings; divide by their length for cosines."""
        return self.embed(preprocess(images))

    def embed(self, faces: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch 512"]:
        """Embeddings of preprocessed faces."""
        x = self.prelu(self.stem(faces))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.embedding_norm(self.fc(self.norm(x).flatten(1)))


def _stage(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
    rest = [IResBlock(out_channels, out_channels, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(IResBlock(in_channels, out_channels, stride=2), *rest)


class IResBlock(nn.Module):
    """Norm, 3x3 convolution and norm, PReLU, strided 3x3 convolution and norm; 1x1 shortcut where it must."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm = FixedNorm(in_channels)
        self.conv1 = ConvNorm(_conv(in_channels, out_channels, 3))
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = ConvNorm(_conv(out_channels, out_channels, 3, stride), scale=_RESIDUAL_SCALE)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvNorm(_conv(in_channels, out_channels, 1, stride))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Residual plus shortcut, without activation."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.conv2(self.prelu(self.conv1(self.norm(x)))) + shortcut


def _table(rows: Mapping[str, str]) -> list[Rename]:
    return [Rename(f"{official}.{{rest}}", f"{ours}.{{rest}}") for official, ours in rows.items()]


IRSE50_NAMES = _table(
    {
        "input_layer.0": "stem.conv",
        "input_layer.1": "stem.bn",
        "input_layer.2": "stem_activation",
        "body.{block}.res_layer.0": "body.{block}.norm",
        "body.{block}.res_layer.1": "body.{block}.conv1",
        "body.{block}.res_layer.2": "body.{block}.prelu",
        "body.{block}.res_layer.3": "body.{block}.conv2.conv",
        "body.{block}.res_layer.4": "body.{block}.conv2.bn",
        "body.{block}.res_layer.5": "body.{block}.se",
        "body.{block}.shortcut_layer.0": "body.{block}.shortcut.conv",
        "body.{block}.shortcut_layer.1": "body.{block}.shortcut.bn",
        "output_layer.0": "norm",
        "output_layer.3": "fc",
        "output_layer.4": "embedding_norm",
    }
)
"""Official names -> ours, ``model_ir_se50.pth``."""

IRESNET_NAMES = _table(
    {
        "conv1": "stem.conv",
        "bn1": "stem.bn",
        "prelu": "prelu",
        "layer{stage}.{block}.bn1": "layer{stage}.{block}.norm",
        "layer{stage}.{block}.conv1": "layer{stage}.{block}.conv1.conv",
        "layer{stage}.{block}.bn2": "layer{stage}.{block}.conv1.bn",
        "layer{stage}.{block}.prelu": "layer{stage}.{block}.prelu",
        "layer{stage}.{block}.conv2": "layer{stage}.{block}.conv2.conv",
        "layer{stage}.{block}.bn3": "layer{stage}.{block}.conv2.bn",
        "layer{stage}.{block}.downsample.0": "layer{stage}.{block}.shortcut.conv",
        "layer{stage}.{block}.downsample.1": "layer{stage}.{block}.shortcut.bn",
        "bn2": "norm",
        "fc": "fc",
        "features": "embedding_norm",
    }
)
"""Official names -> ours, arcface_torch's ``backbone.pth`` of any depth."""


def convert_ir_se50(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of ``model_ir_se50.pth``.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    return converted(checkpoint, IRSE50, {}, IRSE50_NAMES)


def convert_iresnet(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of an arcface_torch ``backbone.pth`` of any depth (18, 34, 50, 100, 200).

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    blocks = [re.match(r"layer([1-4])\.(\d{1,3})\.", name) for name in checkpoint]
    depths = [max((int(b[2]) + 1 for b in blocks if b and b[1] == stage), default=0) for stage in "1234"]
    if min(depths) == 0:
        raise CheckpointError("this is no checkpoint of IResNet: it lacks tensors of layer1 to layer4")
    return converted(checkpoint, IResNet, {"depths": depths}, IRESNET_NAMES)
