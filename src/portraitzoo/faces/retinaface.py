"""RetinaFace with a ResNet-50: where the faces of a picture are (Deng et al., CVPR 2020; arXiv:1905.00641).

Residual network, feature pyramid, context modules and heads are those of the preprint's figure 2 and section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.boxes import SIZES, STEPS, decode_boxes, decode_points, priors, suppress
from portraitzoo.layers.conv_norm import ConvNorm
from portraitzoo.layers.resnet import ResNet, conv
from portraitzoo.media.images import check_image

MEAN = (104.0, 117.0, 123.0)
"""Of ImageNet's blue, green and red, the order of the network's input."""
POINTS = 5
"""Middles of the eyes, tip of the nose, corners of the mouth; of each pair first the one on the image's left."""
LONGEST = 16
"""How many times as long as the other a picture's side may be."""


@dataclass(frozen=True)
class Detections:
    """The faces of one picture, the most certain first.

    Attributes:
        boxes: corners x1, y1, x2, y2, pixels of the picture.
        scores: probabilities.
        points: eyes, tip of the nose and corners of the mouth (see :data:`POINTS`), pixels of the picture.
    """

    boxes: Float64[Tensor, "faces 4"]
    scores: Float64[Tensor, " faces"]
    points: Float64[Tensor, "faces 5 2"]

    def __len__(self) -> int:
        return len(self.boxes)

    def largest(self) -> int:
        """Index of the face whose box has the largest mean of width and height.

        Raises:
            ZooError: if there is no face.
        """
        if not len(self):
            raise ZooError("no face was found: take a picture that shows one, or lower the threshold")
        return int((self.boxes[:, 2:] - self.boxes[:, :2]).sum(dim=1).argmax())


@dataclass(frozen=True)
class Answers:
    """What the network says about every prior of :func:`portraitzoo.faces.boxes.priors`.

    Attributes:
        boxes: offsets, see :func:`portraitzoo.faces.boxes.decode_boxes`.
        scores: probability of a face.
        points: offsets, see :func:`portraitzoo.faces.boxes.decode_points`.
    """

    boxes: Float[Tensor, "batch priors 4"]
    scores: Float[Tensor, "batch priors"]
    points: Float[Tensor, "batch priors 5 2"]


def prepare(image: UInt8[Tensor, "height width 3"], height: int) -> Float[Tensor, "1 3 {height} new_width"]:
    """The network's input: blue, green and red less their means, resized without averaging, in proportion.

    Args:
        image: RGB.
        height: of the input.

    Raises:
        ZooError: if this is no image, or one side is over 16 times as long as the other.
    """
    check_image(image)
    if height < STEPS[-1]:
        raise ZooError(f"faces are looked for in at least {STEPS[-1]} rows, not {height}")
    sides = sorted(image.shape[:2])
    if sides[1] > LONGEST * sides[0]:
        raise ZooError(
            f"an image of {image.shape[1]} x {image.shape[0]} pixels is too long for face detection: cut it into parts"
        )
    scale = height / image.shape[0]
    # The size is left to OpenCV, which then samples at this very scale and not at that of the rounded width.
    resized = cv2.resize(image.cpu().numpy(), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return (torch.from_numpy(resized).flip(-1) - torch.tensor(MEAN)).permute(2, 0, 1)[None]


class RetinaFace(nn.Module):
    """Detector of faces.

    Args:
        depths: blocks of each of the residual network's four stages.
        widths: of its stages.
        stem: channels of its first convolution.
        channels: of the feature pyramid; with 64 or fewer its activations leak.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        channels: int = 256,
    ) -> None:
        super().__init__()
        self.body = ResNet("bottleneck", depths, widths, stem)
        self.pyramid = FeaturePyramid(self.body.out_channels[1:], channels)
        self.contexts = nn.ModuleList(ContextModule(channels) for _ in STEPS)
        self.class_heads, self.box_heads, self.point_heads = (
            nn.ModuleList(nn.Conv2d(channels, len(sides) * numbers, 1) for sides in SIZES)
            for numbers in (2, 4, 2 * POINTS)
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Answers:
        """Look at prepared pictures (see :func:`prepare`)."""
        levels = self.pyramid(self.body(images)[1:])
        features = [context(level) for context, level in zip(self.contexts, levels, strict=True)]
        classes, boxes, points = (
            torch.cat([_rows(head(x), numbers) for head, x in zip(heads, features, strict=True)], dim=1)
            for heads, numbers in ((self.class_heads, 2), (self.box_heads, 4), (self.point_heads, 2 * POINTS))
        )
        return Answers(boxes, classes.softmax(dim=-1)[..., 1], points.unflatten(-1, (POINTS, 2)))

    @torch.no_grad()
    def detect(
        self,
        image: UInt8[Tensor, "height width 3"],
        *,
        threshold: float = 0.8,
        overlap: float = 0.4,
        height: int = 640,
    ) -> Detections:
        """Find the faces of a picture.

        Args:
            image: RGB.
            threshold: probability above which something is a face.
            overlap: intersection over union up to which two boxes are two faces.
            height: to which the picture is resized; faces under about a fortieth of it are not found.

        Returns:
            The faces; empty if there is none.

        Raises:
            ZooError: if this is no image, or one side is over 16 times as long as the other.
        """
        faces = prepare(image, height)
        answers = self(faces.to(next(self.parameters())))
        scores, boxes, points = (part[0].cpu().float() for part in (answers.scores, answers.boxes, answers.points))
        certain = (scores > threshold).nonzero()[:, 0]
        certain = certain[scores[certain].argsort(descending=True, stable=True)]
        chosen = priors(*faces.shape[-2:])[certain]
        # A width that was rounded does not come back exactly; the published detector measures by the height, too.
        extent = torch.tensor([faces.shape[-1], faces.shape[-2]]) / (height / image.shape[0])
        found = decode_boxes(boxes[certain], chosen) * extent.repeat(2)
        kept = suppress(found, overlap)
        faces_points = decode_points(points[certain[kept]], chosen[kept]) * extent
        return Detections(found[kept].double(), scores[certain[kept]].double(), faces_points.double())


def _rows(answers: Float[Tensor, "batch priors_numbers height width"], numbers: int) -> Float[Tensor, "batch _ _"]:
    return answers.permute(0, 2, 3, 1).reshape(len(answers), -1, numbers)


class FeaturePyramid(nn.Module):
    """Features of three sizes, the larger ones told what the smaller ones see (Lin et al., CVPR 2017, section 3).

    Args:
        in_channels: of the maps, the largest first.
        channels: of the results.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.leak = leak(channels)
        self.laterals = nn.ModuleList(conv(size, channels, 1) for size in in_channels)
        self.merges = nn.ModuleList(conv(channels, channels, 3) for _ in in_channels[1:])

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> list[Float[Tensor, "batch channels _ _"]]:
        """Maps of the network's stages, the largest first, to as many of the same sizes."""
        levels = [
            F.leaky_relu(lateral(x), self.leak, inplace=True) for lateral, x in zip(self.laterals, maps, strict=True)
        ]
        for index in reversed(range(len(self.merges))):
            above = F.interpolate(levels[index + 1], levels[index].shape[-2:], mode="nearest")
            levels[index] = F.leaky_relu(self.merges[index](above.add_(levels[index])), self.leak, inplace=True)
        return levels


class ContextModule(nn.Module):
    """Features of a face with its surroundings: 3x3, 5x5 and 7x7 windows made of 3x3 convolutions (the
    context module of SSH, Najibi et al., ICCV 2017).

    Args:
        channels: of the input and of the output: a half, a fourth and a fourth from the three windows.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.leak = leak(channels)
        half, quarter = channels // 2, channels // 4
        self.window3 = conv(channels, half, 3)
        self.surroundings = conv(channels, quarter, 3)
        self.window5 = conv(quarter, quarter, 3)
        self.wider: ConvNorm = conv(quarter, quarter, 3)
        self.window7 = conv(quarter, quarter, 3)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Apply the module."""
        seen = F.leaky_relu(self.surroundings(x), self.leak, inplace=True)
        wider = F.leaky_relu(self.wider(seen), self.leak, inplace=True)
        return F.relu(torch.cat([self.window3(x), self.window5(seen), self.window7(wider)], dim=1), inplace=True)


def leak(channels: int) -> float:
    """Slope for negative numbers that RetinaFace's activations have at this width."""
    return 0.1 if channels <= 64 else 0.0
