"""Face coefficients from a picture: Deep3DFaceRecon's regressor (Deng et al., CVPRW 2019, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.layers.resnet import ResNet

HEADS = {name: size for name, size in SIZES.items() if name != "translation"} | {"shift": 2, "distance": 1}
"""Outputs: the coefficients, the translation in two parts."""


class Deep3D(nn.Module):
    """A residual network and a linear layer for each kind of coefficient; ResNet-50 unless told otherwise.

    Args:
        depths: blocks of each stage.
        widths: width of each stage's blocks.
    """

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.backbone = ResNet("bottleneck", depths, widths)
        features = self.backbone.out_channels[-1]
        self.heads = nn.ModuleDict({name: nn.Conv2d(features, size, 1) for name, size in HEADS.items()})

    def forward(self, images: Float[Tensor, "batch 3 224 224"]) -> FaceCoefficients:
        """Coefficients of the faces in crops.

        Args:
            images: RGB in [0, 1], cut out by :func:`~portraitzoo.faces.alignment.coefficient_crop`. Gradients reach
                them.
        """
        features = self.backbone(images)[-1].mean((2, 3), keepdim=True)
        found = [head(features).flatten(1) for head in self.heads.values()]
        return FaceCoefficients.from_vector(torch.cat(found, dim=1))
