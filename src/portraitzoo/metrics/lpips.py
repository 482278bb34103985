"""LPIPS, the learned perceptual distance between images (Zhang et al. 2018, section 3), version 0.1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.hub.conversion import Conversion, Drop, Rename
from portraitzoo.hub.state_dicts import converted
from portraitzoo.metrics.resizing import bilinear, channels_first

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-10

Backbone = Literal["alex", "vgg"]

TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""Layers of torchvision's ``features`` whose output (after ReLU) is compared."""
LEAST_SIZE = {"alex": 31, "vgg": 16}
"""Pixels a side below which there are no deep features."""
WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


class LPIPS(nn.Module):
    r"""Perceptual distance between pairs of images.

    .. math:: d(x, y) = \sum_l \mathrm{mean}_{hw} \sum_c w_{lc} (\hat{x}_{lchw} - \hat{y}_{lchw})^2

    where :math:`\hat{x}_l` are the features of layer l divided by their length over channels and :math:`w_l \ge 0` are
    learned. Values of the two backbones do not compare; small images have no deep features (alex needs 31 pixels a
    side, vgg 16).

    Args:
        net: ``"alex"`` or ``"vgg"``.
        smooth_norm: add 1e-10 inside the root of the length too, as Portrait4D's training loss does: the same values,
            and a finite gradient where features vanish.
    """

    num_features = 1
    shift: Tensor
    scale: Tensor

    def __init__(self, net: Backbone = "alex", smooth_norm: bool = False) -> None:
        super().__init__()
        self.net: Backbone = net
        self.smooth_norm = smooth_norm
        self.features = _alexnet() if net == "alex" else vgg16_convolutions()
        self.lins = nn.ModuleList(ChannelWeights(width) for width in WIDTHS[net])
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"] | UInt8[Tensor, "batch height width 3"],
        others: Float[Tensor, "batch 3 height width"] | UInt8[Tensor, "batch height width 3"],
        spatial: bool = False,
    ) -> Float[Tensor, " batch"] | Float[Tensor, "batch 1 height width"]:
        """Distance of each pair, or with ``spatial`` a map of it at the size of the images.

        Args:
            images: float in [-1, 1], or bytes.
            others: the other image of each pair, of the same shape and type.
            spatial: return the map.

        Raises:
            ZooError: if the shapes or types differ.
        """
        if images.shape != others.shape or images.dtype != others.dtype:
            raise ZooError(
                f"LPIPS compares images of one shape and type, not {images.dtype} {list(images.shape)} "
                f"and {others.dtype} {list(others.shape)}"
            )
        if images.dtype == torch.uint8:
            images, others = (channels_first(x) / 127.5 - 1 for x in (images, others))
        maps = self.layer_maps(images, others)
        if spatial:
            height, width = images.shape[-2:]
            return torch.stack([bilinear(layer, height, width) for layer in maps]).sum(0)
        return torch.stack([layer.mean((1, 2, 3)) for layer in maps]).sum(0)

    def layer_maps(
        self, images: Float[Tensor, "batch 3 height width"], others: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch 1 layer_height layer_width"]]:
        """Distance map of each of the five layers, at that layer's size."""
        both = self.backbone_features(torch.cat([images, others]))
        maps = []
        for features, lin in zip(both, self.lins, strict=True):
            first, second = self._unit(features).chunk(2)
            maps.append(lin((first - second).square()))
        return maps

    def backbone_features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch channels layer_height layer_width"]]:
        """The five feature maps of images in [-1, 1]."""
        x = (images - self.shift) / self.scale
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS[self.net]:
                found.append(x)
        return found

    def _unit(self, features: Float[Tensor, "batch channels height width"]) -> Tensor:
        squared = features.square().sum(1, keepdim=True)
        return features / ((squared + EPS if self.smooth_norm else squared).sqrt() + EPS)


class ChannelWeights(nn.Module):
    """Weighted sum over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), 1 / channels))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
        """One map for each image."""
        return (x * self.weight).sum(1, keepdim=True)


def _alexnet() -> nn.Sequential:
    """Features of torchvision's AlexNet up to the fifth ReLU."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def vgg16_convolutions() -> nn.Sequential:
    """Layers of torchvision's VGG-16 up to the last convolution's ReLU."""
    layers: list[nn.Module] = []
    width = 3
    for stage, (out, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if stage:
            layers.append(nn.MaxPool2d(2, stride=2))
        for _ in range(depth):
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
            width = out
    return nn.Sequential(*layers)


NAMES = [
    Rename("features.{layer}.{rest}", "features.{layer}.{rest}"),
    Rename("net.slice{number}.{layer}.{rest}", "features.{layer}.{rest}"),
    Rename("lin{number}.model.1.weight", "lins.{number}.weight"),
]
"""Official names -> ours: torchvision's backbone file and lpips' linear file, or lpips' composed module."""

DROPS = [
    Drop(r"classifier\..+", "the backbone's classifier, which LPIPS does not use"),
    Drop(r"lins\..+", "the linear layers, which lpips' module lists twice"),
    Drop(r"scaling_layer\..+", "constants of the method"),
]


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of torchvision's ``alexnet-owt-*.pth`` or ``vgg16-*.pth`` merged with lpips' ``v0.1/alex.pth`` or
    ``vgg.pth``; also the state dict of lpips' composed module.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    first = next((checkpoint[n] for n in ("features.0.weight", "net.slice1.0.weight") if n in checkpoint), None)
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise CheckpointError("this is no checkpoint of LPIPS: it lacks the backbone's features.0.weight")
    net: Backbone = "alex" if first.shape[-1] == 11 else "vgg"
    return converted(checkpoint, LPIPS, {"net": net}, NAMES, DROPS)
