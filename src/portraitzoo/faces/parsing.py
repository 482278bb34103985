"""Parts of a face, pixel by pixel: BiSeNet (Yu et al., ECCV 2018) without its spatial path, of CelebAMask-HQ's classes.

The network is the one of face-parsing.PyTorch: a ResNet-18 whose deepest features are weighted by their global mean,
brought back to an eighth of the picture's size, and fused there with the features of that size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.layers.resnet import ResNet, conv

INPUT_SIZE = 512
CLASSES = (
    *("background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear"),
    *("earring", "nose", "mouth", "upper_lip", "lower_lip", "neck", "necklace", "cloth", "hair", "hat"),
)
"""Names of the labels; "mouth" is its inside."""
BACKGROUND, SKIN, NOSE, MOUTH, UPPER_LIP, LOWER_LIP, NECK, NECKLACE, CLOTH, HAIR, HAT = 0, 1, *range(10, 19)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class BiSeNet(nn.Module):
    """The network; its defaults are the released one.

    Args:
        depths: blocks of each stage of the residual network.
        widths: width of each stage.
        stem: channels of the first convolution.
        context: channels at 1/16 and 1/32 of the size.
        fused: channels of the fused features.
        auxiliary: channels within the two auxiliary heads.
        classes: number of labels.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        context: int = 128,
        fused: int = 256,
        auxiliary: int = 64,
        classes: int = len(CLASSES),
    ) -> None:
        super().__init__()
        self.resnet = ResNet("basic", depths, widths, stem)
        eighth, sixteenth, last = self.resnet.out_channels[-3:]
        self.attend16, self.attend32 = Attention(sixteenth, context), Attention(last, context)
        self.whole = conv(last, context, 1)
        self.refine16, self.refine32 = conv(context, context, 3), conv(context, context, 3)
        self.fusion = Fusion(eighth + context, fused)
        self.head = Head(fused, fused, classes)
        self.head16, self.head32 = Head(context, auxiliary, classes), Head(context, auxiliary, classes)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes height width"]:
        """Logits of the labels; gradients reach the pictures.

        Args:
            images: as :func:`normalise` gives them, sides multiples of 32; the network was trained on 512 x 512.
        """
        return _enlarged(self.head(self.features(images)[0]), images)

    def auxiliary(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch classes height width"], Float[Tensor, "batch classes height width"]]:
        """Logits of the heads that train features at 1/8 and 1/16 of the size (official "16" and "32")."""
        _, eighth, sixteenth = self.features(images)
        return _enlarged(self.head16(eighth), images), _enlarged(self.head32(sixteenth), images)

    def features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[
        Float[Tensor, "batch fused _ _"], Float[Tensor, "batch context _ _"], Float[Tensor, "batch context _ _"]
    ]:
        """Fused features at 1/8 of the size, and those of the context at 1/8 and at 1/16."""
        x8, x16, x32 = self.resnet(images)[-3:]
        whole = F.relu(self.whole(x32.mean((2, 3), keepdim=True)))
        context16 = F.relu(self.refine32(F.interpolate(self.attend32(x32) + whole, x16.shape[-2:])))
        context8 = F.relu(self.refine16(F.interpolate(self.attend16(x16) + context16, x8.shape[-2:])))
        return self.fusion(x8, context8), context8, context16

    @torch.no_grad()
    def labels(self, images: UInt8[Tensor, "batch height width 3"]) -> Int[Tensor, "batch height width"]:
        """The likeliest label of each pixel, an index of :data:`CLASSES`.

        Pictures of other sizes are resized to the 512 x 512 that the network was trained on, and its logits to the
        pictures' size.

        Args:
            images: RGB, one face in each, which fills a good part of it.

        Raises:
            ZooError: for other shapes or types.
        """
        if images.ndim != 4 or images.dtype != torch.uint8 or images.shape[-1] != 3 or 0 in images.shape[1:]:
            raise ZooError(
                f"face parsing takes uint8 images [batch, height, width, 3], not {images.dtype} {list(images.shape)}"
            )
        pictures = images.to(self.head.classes.weight.device).permute(0, 3, 1, 2).float()
        size = pictures.shape[-2:]
        if size != (INPUT_SIZE, INPUT_SIZE):
            pictures = F.interpolate(pictures, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True)
        logits = self.head(self.features(normalise(pictures / 255))[0])
        # The labels of a pixel side by side are compared several times as fast.
        logits = logits.contiguous(memory_format=torch.channels_last)
        # One picture at a time: full-size logits of a batch would be the largest thing in memory by far.
        grown = (F.interpolate(one[None], size, mode="bilinear", align_corners=True) for one in logits)
        return torch.cat([one.argmax(1) for one in grown]) if len(logits) else logits.new_zeros(0, *size).long()


class Attention(nn.Module):
    """Features whose channels are scaled by a number in (0, 1) that their mean decides ("attention refinement")."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 3)
        self.gate = conv(out_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "batch in_channels height width"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Scaled features."""
        x = F.relu(self.conv(x))
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Fusion(nn.Module):
    """Two sets of features as one, whose channels are amplified by up to two as their mean decides."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 1)
        self.squeeze = nn.Conv2d(out_channels, out_channels // 4, 1, bias=False)
        self.excite = nn.Conv2d(out_channels // 4, out_channels, 1, bias=False)

    def forward(
        self, detail: Float[Tensor, "batch _ height width"], context: Float[Tensor, "batch _ height width"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Fused features."""
        x = F.relu(self.conv(torch.cat([detail, context], dim=1)))
        return x + x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class Head(nn.Module):
    """A 3x3 convolution and a linear classifier of each pixel."""

    def __init__(self, in_channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, width, 3)
        self.classes = nn.Conv2d(width, classes, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch classes height width"]:
        """Logits at the size of the features."""
        return self.classes(F.relu(self.conv(x)))


def normalise(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Network input of RGB pictures in [0, 1]: ImageNet's mean and deviation."""
    mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (images - mean) / deviation


def _enlarged(logits: Tensor, images: Tensor) -> Tensor:
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)
