"""VGG-16 as precision, recall, density and coverage look through it (Simonyan and Zisserman 2015, configuration D).

The features are the 4096 rectified activations of the second fully connected layer. StyleGAN's code takes them from
NVIDIA's ``vgg16.pkl``; torchvision's ImageNet weights with torch-fidelity's input path are the public substitute, and
what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.hub.conversion import Conversion, Drop, Rename
from portraitzoo.hub.state_dicts import converted
from portraitzoo.metrics.lpips import vgg16_convolutions
from portraitzoo.metrics.resizing import bilinear_tensorflow1, channels_first, check_pixels

INPUT_SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pixels in [0, 1]."""


class VGG16(nn.Module):
    """Images to the 4096 features of fc2."""

    num_features = 4096
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*vgg16_convolutions(), nn.MaxPool2d(2, stride=2))
        self.fc1 = nn.Linear(512 * 7 * 7, self.num_features)
        self.fc2 = nn.Linear(self.num_features, self.num_features)
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 4096"]:
        """RGB images -> rectified fc2 activations.

        Raises:
            ZooError: for other shapes or types.
        """
        check_pixels(images, "batch height width 3", "VGG-16")
        x = bilinear_tensorflow1(channels_first(images), INPUT_SIZE, INPUT_SIZE)
        x = self.features((x - self.mean) / self.std)
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))


NAMES = [
    Rename("features.{rest}", "features.{rest}"),
    Rename("classifier.0.{rest}", "fc1.{rest}"),
    Rename("classifier.3.{rest}", "fc2.{rest}"),
]
"""torchvision's names -> ours."""

DROPS = [Drop(r"classifier\.6\..+", "the classes of ImageNet, which the features do not need")]


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of torchvision's ``vgg16-397923af.pth``.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    return converted(checkpoint, VGG16, {}, NAMES, DROPS)
