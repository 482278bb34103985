"""Stages in which a network looks at whole clips or at single frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.features import true_float32
from portraitzoo.metrics.inception import Inception
from portraitzoo.metrics.inception3d import MIN_FRAMES
from portraitzoo.metrics.measures.base import Networks, Stage
from portraitzoo.metrics.precision_recall import ManifoldShares, manifold_shares
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered


class VideoStage(Stage):
    """One vector for each clip."""

    need = "clips"

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """One row for each clip."""
        assert self.network is not None
        videos = torch.stack([clip.frames for clip in clips]).to(self.device)
        return list(self.network(videos).float().cpu().numpy()[:, None])


class VideoFeatures(VideoStage):
    """I3D's logits: FVD."""

    name = "video"

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        if protocol.clip_length < MIN_FRAMES:
            raise ZooError(f"FVD needs clips of {MIN_FRAMES} frames or more, not {protocol.clip_length}")
        super().__init__(protocol, networks)

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's video network."""
        return protocol.video_network


class FrameFeatures(Stage):
    """One vector for each frame that counts as an image."""

    need = "images"

    @property
    def key(self) -> dict[str, object]:
        """Which frames of a clip are images matters too."""
        return super().key | {"frames": self.protocol.fid_frames}

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """A row for each frame that counts."""
        assert self.network is not None
        taken = [clip.frames[:1] if self.protocol.fid_frames == "first" else clip.frames for clip in clips]
        images = torch.cat(taken).split(4 * self.batch_size)
        features = torch.cat([self.network(batch.to(self.device)).float().cpu() for batch in images])
        return [part.numpy() for part in features.split([len(frames) for frames in taken])]


class ImageFeatures(FrameFeatures):
    """Inception's 2048 pooled features: FID and KID, and the Inception Score, whose logits are linear in them."""

    name = "image"

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        super().__init__(protocol, networks)
        assert self.network is not None
        if isinstance(self.network.module, Inception):
            self.network.module.input_path = protocol.inception_path
        elif protocol.inception_path != "tensorflow":
            raise ZooError(f"{self.network.name} has one way to resize images: inception_path is for Inception")

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's image network."""
        return protocol.image_network

    @property
    def key(self) -> dict[str, object]:
        """How images reach the network matters too."""
        return super().key | {"path": self.protocol.inception_path}

    def probabilities(
        self, rows: Float32[np.ndarray, "images features"], title: str
    ) -> Float[Tensor, "images classes"]:
        """Class probabilities of feature rows.

        Raises:
            ZooError: if the protocol's image network has no classes.
        """
        assert self.network is not None
        classifier = getattr(self.network.module, "unbiased_logits", None)
        if classifier is None:
            raise ZooError(f"{title} needs a classifier, which {self.network.name} is not: set image_network")
        device = next(self.network.module.parameters()).device
        with torch.inference_mode(), true_float32(device.type):
            logits = [classifier(part.to(device)).cpu() for part in torch.from_numpy(rows).split(4096)]
        return torch.cat(logits).softmax(1)


class ManifoldFeatures(FrameFeatures):
    """VGG-16's fc2 activations: precision, recall, density, coverage."""

    name = "manifold"

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        super().__init__(protocol, networks)
        self._shares: ManifoldShares | None = None

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's network for manifolds."""
        return protocol.manifold_network

    def shares(self, generated: Gathered, real: Gathered) -> ManifoldShares:
        """All four shares, computed once for all measures that read them."""
        if self._shares is None:
            place = self.device if self.device.type == "cuda" else "cpu"  # Metal has no float64
            theirs, ours = (torch.from_numpy(side.matrix()).to(place) for side in (real, generated))
            protocol = self.protocol
            self._shares = manifold_shares(theirs, ours, neighbours=protocol.neighbours, half=protocol.half)
        return self._shares


class ActionProbabilities(VideoStage):
    """Class probabilities of each clip: the video Inception Score."""

    name = "actions"

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's classifier of actions."""
        return protocol.action_network
