"""What Portrait4D is trained for: a rendered frame compared with its target (CVPR 2024, section 3.4; v2, section 3.3).

Masks work on colours in [0, 1]: black, -1, is where nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.similarity import fit_similarity, warp
from portraitzoo.layers.resampling import resize
from portraitzoo.rendering.triplane import CYCLIC_AXES, triplane_features

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Distances of images in [-1, 1], as LPIPS gives them."""
Identity = Callable[[Tensor], Tensor]
"""Embeddings of face crops [batch, 3, 112, 112] in [-1, 1], as ArcFace gives them."""

FACE_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where ArcFace wants the pupils, the nose and the corners of the mouth, pixels of 112."""
FACE_LANDMARKS = [68, 69, 30, 48, 54]
FACE_SIZE = 112


class Rendering(Protocol):
    """What the losses look at of a :class:`~portraitzoo.methods.portrait4d.network.Portrait4DOutput`."""

    @property
    def image(self) -> Float[Tensor, "batch 3 height width"]:
        """Finished frames."""

    @property
    def depth(self) -> Float[Tensor, "batch 1 resolution resolution"]:
        """Expected distance along each ray."""

    @property
    def opacity(self) -> Float[Tensor, "batch 1 resolution resolution"]:
        """Light stopped within the volume."""

    @property
    def foreground_features(self) -> Float[Tensor, "batch channels resolution resolution"]:
        """Rendered features without background."""

    @property
    def background_features(self) -> Float[Tensor, "batch channels resolution resolution"]:
        """Those of the background."""

    @property
    def image_raw(self) -> Float[Tensor, "batch 3 resolution resolution"]:
        """Before super-resolution."""

    @property
    def foreground(self) -> Float[Tensor, "batch 3 resolution resolution"]:
        """The same without background."""

    @property
    def background(self) -> Float[Tensor, "batch 3 resolution resolution"]:
        """The background alone."""


@dataclass(frozen=True)
class Synthesised:
    """What a target made by GenHead has beside its picture.

    Attributes:
        mask: in [-1, 1], as the volume renderer gave it.
        depth: expected distance along each ray.
        features: rendered features in [-1, 1].
        background_features: those of the background.
        points: places in the space of the straight neck,
        point_features: and the mean tri-plane features there.
    """

    mask: Float[Tensor, "batch 1 raw raw"]
    depth: Float[Tensor, "batch 1 raw raw"]
    features: Float[Tensor, "batch channels raw raw"]
    background_features: Float[Tensor, "batch channels raw raw"]
    points: Float[Tensor, "batch points 3"]
    point_features: Float[Tensor, "batch points channels"]


@dataclass(frozen=True)
class Target:
    """The picture a frame should be.

    Attributes:
        image: in [-1, 1].
        mask: of the head, in [-1, 1], all channels alike.
        synthesised: what else is known of it; None for real pictures.
    """

    image: Float[Tensor, "batch 3 height width"]
    mask: Float[Tensor, "batch channels height width"]
    synthesised: Synthesised | None = None


def reconstruction_losses(
    output: Rendering,
    target: Target,
    perceptual: Perceptual | None,
    *,
    planes: Float[Tensor, "batch 3 channels size size"] | None = None,
    box_warp: float = 1.3,
) -> dict[str, Float[Tensor, ""]]:
    """Distances of frames from their targets, unweighted: ``perceptual``, ``l1``, ``mask``, and for synthesised targets
    ``depth``, ``features`` and, where planes are given, ``planes``.

    Args:
        output: frames.
        target: what they should be.
        perceptual: distance of images; None leaves it out.
        planes: tri-planes of the frames.
        box_warp: side of the cube that they cover.
    """
    size = output.image_raw.shape[-1]
    small = resize(target.image, size)
    head = resize(target.mask, size).mean(dim=1, keepdim=True)
    known = target.synthesised
    mask = head if known is None else resize(known.mask, size)
    if known is None:
        backgrounds = masked(output.background, -mask), masked(small, -mask)
    else:
        backgrounds = output.background, resize(known.background_features[:, :3], size)
    pairs = (
        (output.image, target.image),
        (output.image_raw, small),
        (output.foreground, masked(small, mask)),
        backgrounds,
    )
    losses = {
        "l1": torch.stack([F.l1_loss(ours, wanted) for ours, wanted in pairs]).sum(),
        "mask": F.l1_loss(output.opacity * 2 - 1, mask),
    }
    if perceptual is not None:
        losses["perceptual"] = torch.stack([perceptual(ours, wanted).mean() for ours, wanted in pairs]).sum()
    if known is not None:
        losses["depth"] = ((output.depth - resize(known.depth, size)).abs() * (head + 1) / 2).mean()
        features = masked(resize(known.features, size), mask)
        behind = resize(known.background_features, size)
        losses["features"] = F.l1_loss(output.foreground_features, features) + F.l1_loss(
            output.background_features, behind
        )
        if planes is not None:
            there = triplane_features(planes, known.points, box_warp, CYCLIC_AXES)
            losses["planes"] = F.l1_loss(there, known.point_features)
    return losses


def identity_loss(
    image: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    landmarks: Float[Tensor, "batch 70 2"],
    identity: Identity,
) -> Float[Tensor, ""]:
    """One minus the cosine between embeddings of the faces.

    Args:
        image: frames in [-1, 1].
        target: what they should be.
        landmarks: in both, pixels, y UP (as projected from the head).
        identity: embeds face crops.
    """
    matrices = face_matrix(landmarks, image.shape[-1])
    ours, wanted = (warp(part, matrices, FACE_SIZE).clamp(-1, 1) for part in (image, target))
    return (1 - F.cosine_similarity(identity(ours), identity(wanted), dim=1)).mean()


def pixels_up(landmarks: Float[Tensor, "batch landmarks 2"], size: int) -> Float[Tensor, "batch landmarks 2"]:
    """Landmarks in units of the image size from the upper left corner as pixels, y up, as upstream projects them."""
    return torch.stack([landmarks[..., 0] * size, size - landmarks[..., 1] * size], dim=-1)


def face_matrix(landmarks: Float[Tensor, "batch 70 2"], size: int) -> Float[Tensor, "batch 2 3"]:
    """Similarity to ArcFace's crop, for pixel coordinates with y down.

    Args:
        landmarks: pixels, y up.
        size: side of the picture.
    """
    points = y_down(landmarks[:, FACE_LANDMARKS], size).double()
    return fit_similarity(points, torch.tensor(FACE_TEMPLATE).to(points).expand_as(points))


def y_down(landmarks: Float[Tensor, "batch landmarks 2"], size: int) -> Float[Tensor, "batch landmarks 2"]:
    """Pixels counted from the top instead of from the bottom of a picture."""
    return torch.stack([landmarks[..., 0], size - 1 - landmarks[..., 1]], dim=-1)


def masked(
    image: Float[Tensor, "batch channels height width"], mask: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch channels height width"]:
    """An image in [-1, 1] on black, where the mask in [-1, 1] says."""
    return (image + 1) * (mask + 1) / 2 - 1
