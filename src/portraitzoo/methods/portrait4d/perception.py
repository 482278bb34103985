"""The ready networks that Portrait4D's training looks through: LPIPS, ArcFace, PD-FGC. None of them learns."""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.motion_embedding import MotionEncoder, crop_face
from portraitzoo.metrics.arcface import IResNet
from portraitzoo.metrics.features import feature_module
from portraitzoo.metrics.lpips import LPIPS
from portraitzoo.training.frozen import Frozen

PERCEPTUAL, IDENTITY, MOTION = "lpips-vgg", "iresnet18-ms1mv3", "pdfgc-motion"
"""Their names in the index."""

PerceptionWeights = Literal["official", "random"]


class Perception:
    """Frozen networks, each read when it is first needed.

    Args:
        weights: ``official``, or ``random`` ones to try things offline; what is learned from those is worth nothing.
    """

    def __init__(self, weights: PerceptionWeights = "official") -> None:
        self.weights: PerceptionWeights = weights
        self._perceptual: Frozen[LPIPS] | None = None
        self._identity: Frozen[IResNet] | None = None
        self._motion: Frozen[MotionEncoder] | None = None

    def load(self, *, perceptual: bool = False, identity: bool = False, motion: bool = False) -> None:
        """Read networks before they are needed.

        Raises:
            WeightsUnavailableError: if weights are not here and cannot be fetched.
        """
        if perceptual and self._perceptual is None:
            network = cast(LPIPS, feature_module(PERCEPTUAL, self.weights))
            network.smooth_norm = True  # its gradient is finite where images are alike
            self._perceptual = Frozen(network)
        if identity and self._identity is None:
            self._identity = Frozen(cast(IResNet, feature_module(IDENTITY, self.weights)))
        if motion and self._motion is None:
            self._motion = Frozen(cast(MotionEncoder, feature_module(MOTION, self.weights)))

    def distance(
        self, images: Float[Tensor, "batch 3 height width"], others: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """Perceptual distance (LPIPS, VGG-16) of images in [-1, 1]."""
        self.load(perceptual=True)
        assert self._perceptual is not None
        return self._perceptual.on(images.device)(images, others)

    def identity(self, crops: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch 512"]:
        """Embeddings of face crops in [-1, 1]; not of unit length."""
        self.load(identity=True)
        assert self._identity is not None
        return self._identity.on(crops.device).embed(crops)

    @torch.no_grad()
    def motion(
        self, images: Float[Tensor, "batch 3 height width"], landmarks: Float[Tensor, "batch landmarks 2"]
    ) -> Float[Tensor, "batch 548"]:
        """Motion embeddings of images in [-1, 1].

        Args:
            images: aligned or not.
            landmarks: 68 or more in iBUG's order, pixels, y down.
        """
        self.load(motion=True)
        assert self._motion is not None
        return self._motion.on(images.device)(crop_face(images, landmarks))
