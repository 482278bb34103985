"""Motion embeddings of faces: PD-FGC's encoder (Wang et al., CVPR 2023), which drives Portrait4D.

Eyes, emotion and mouth of a face as 548 numbers that say little about who it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.faces.hourglass import HierarchicalBlock, Hourglass
from portraitzoo.faces.similarity import fit_similarity, warp
from portraitzoo.layers.conv_norm import FixedNorm

INPUT_SIZE = 224
TEMPLATE = ((87.0, 59.0), (137.0, 59.0), (112.0, 120.0))
"""Where the middles of the eye on the image's left, of the other eye and of the mouth come to lie, pixels of 224."""
LANDMARK_GROUPS = (slice(36, 42), slice(42, 48), slice(60, 68))
CROP_ROWS, CROP_COLUMNS = slice(0, 192), slice(16, 208)
HEAD_POSE, EYE, EMOTION = 6, 6, 30


def crop_matrix(landmarks: Float[Tensor, "batch landmarks 2"]) -> Float[Tensor, "batch 2 3"]:
    """Similarity that brings a face to where the encoder expects it.

    Args:
        landmarks: 68 or more in iBUG's order, pixels, y down.

    Returns:
        Map of pixel coordinates to those of a picture of 224 pixels; the identity for landmarks that are all the same.
    """
    points = torch.stack([landmarks[:, group].double().mean(dim=1) for group in LANDMARK_GROUPS], dim=1)
    found = fit_similarity(points, torch.tensor(TEMPLATE).to(points).expand_as(points))
    unmoved = torch.eye(2, 3).to(found)
    return torch.where(torch.isfinite(found).all(dim=(1, 2), keepdim=True), found, unmoved)


def crop_face(
    images: Float[Tensor, "batch 3 height width"], landmarks: Float[Tensor, "batch landmarks 2"]
) -> Float[Tensor, "batch 3 224 224"]:
    """The part of pictures that the encoder looks at.

    Args:
        images: in [-1, 1].
        landmarks: as in :func:`crop_matrix`, pixels of ``images``.
    """
    aligned = warp(images, crop_matrix(landmarks).to(images.device), INPUT_SIZE)
    return zoom_crop(aligned)


def zoom_crop(aligned: Float[Tensor, "batch 3 224 224"]) -> Float[Tensor, "batch 3 224 224"]:
    """The middle and upper part of aligned pictures, enlarged to their size."""
    part = aligned[:, :, CROP_ROWS, CROP_COLUMNS]
    return F.interpolate(part, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False).clamp(-1, 1)


class FaceFeatures(nn.Module):
    """A face alignment network of one hourglass whose landmark maps become one vector.

    Args:
        width: channels.
        landmarks: maps.
        features: width of the vector.
        input_size: side of the pictures.
    """

    def __init__(self, width: int, landmarks: int, features: int, input_size: int) -> None:
        super().__init__()
        self.input, self.input_norm = nn.Conv2d(3, width // 4, 7, stride=2, padding=3), FixedNorm(width // 4)
        self.block1 = HierarchicalBlock(width // 4, width // 2)
        self.block2 = HierarchicalBlock(width // 2, width // 2)
        self.block3 = HierarchicalBlock(width // 2, width)
        self.hourglass = Hourglass(width, "max", "bilinear")
        self.block4 = HierarchicalBlock(width, width)
        self.last, self.last_norm = nn.Conv2d(width, width, 1), FixedNorm(width)
        self.maps, self.maps_norm = nn.Conv2d(width, landmarks, 1), FixedNorm(landmarks)
        self.merge = nn.Conv2d(landmarks, 1, 3, stride=2, padding=1)
        self.output = nn.Linear((input_size // 8) ** 2, features)

    def forward(self, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch features"]:
        """Features of crops in [-1, 1]."""
        x = self.block1(F.relu(self.input_norm(self.input(images))))
        x = self.block3(self.block2(F.max_pool2d(x, 2)))
        x = self.block4(self.hourglass(x))
        maps = self.maps(F.relu(self.last_norm(self.last(x))))
        merged = self.merge(F.relu(self.maps_norm(maps)))
        return self.output(F.relu(merged.flatten(1)))


@dataclass(frozen=True)
class MotionCodes:
    """What the encoder says about faces.

    Attributes:
        head_pose: of the head; no part of the embedding.
        eye: gaze and blinks.
        emotion: expression beside the mouth.
        mouth: features of the mouth.
    """

    head_pose: Float[Tensor, "batch 6"]
    eye: Float[Tensor, "batch 6"]
    emotion: Float[Tensor, "batch 30"]
    mouth: Float[Tensor, "batch features"]

    @property
    def embedding(self) -> Float[Tensor, "batch motion"]:
        """Eye, emotion and mouth in a row: the motion embedding, 548 numbers as published."""
        return torch.cat([self.eye, self.emotion, self.mouth], dim=1)


class MotionEncoder(nn.Module):
    """PD-FGC's encoder of face crops.

    Args:
        width: channels of the hourglass.
        landmarks: its maps.
        features: width of the vectors.
        input_size: side of the crops, pixels.
    """

    def __init__(
        self, width: int = 256, landmarks: int = 68, features: int = 512, input_size: int = INPUT_SIZE
    ) -> None:
        super().__init__()
        self.features = FaceFeatures(width, landmarks, features, input_size)
        self.head_pose, self.eye, self.emotion, self.mouth = (
            nn.Sequential(nn.Linear(features, features), nn.ReLU(), FixedNorm(features), nn.Linear(features, features))
            for _ in range(4)
        )
        self.head_pose_code, self.eye_code, self.emotion_code = (
            nn.Linear(features, size) for size in (HEAD_POSE, EYE, EMOTION)
        )

    def codes(self, images: Float[Tensor, "batch 3 size size"]) -> MotionCodes:
        """All that the encoder says about crops in [-1, 1] (see :func:`crop_face`)."""
        seen = self.features(images)
        return MotionCodes(
            head_pose=self.head_pose_code(F.relu(self.head_pose(seen))),
            eye=self.eye_code(F.relu(self.eye(seen))),
            emotion=self.emotion_code(F.relu(self.emotion(seen))),
            mouth=self.mouth(seen),
        )

    def forward(self, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch motion"]:
        """Motion embeddings of crops in [-1, 1]."""
        return self.codes(images).embedding
