"""Numbers of the faces in clips and pairs: the same person, the same keypoints, pose and expression."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.measures.base import Networks, Stage
from portraitzoo.metrics.measures.items import ItemMeasure
from portraitzoo.metrics.measures.paired import PairMeasure, PairStage
from portraitzoo.metrics.measures.subjects import Embeddings, consistency
from portraitzoo.metrics.pairs import TARGET
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.reconstruction import SUFFIX, Quantity
from portraitzoo.metrics.results import Gathered


class FrameEmbeddings(Embeddings):
    """A face embedding for each frame of a clip."""

    name = "faces"
    need = "clips"


class IdentityOverTime(ItemMeasure):
    """Cosine similarity of face embeddings over all pairs of frames of a clip: does the person stay the same?"""

    name = "identity-time"
    title = "ID over time"
    stage_type = FrameEmbeddings
    higher_is_better = True
    unit = "clips"

    def __init__(self, protocol: Protocol, stage: Stage) -> None:
        if protocol.clip_length < 2:
            raise ZooError(f"{self.title} needs clips of 2 frames or more, not {protocol.clip_length}")
        super().__init__(protocol, stage)

    def values(self, generated: Gathered) -> list[Float[np.ndarray, " parts"]]:
        """Mean over the pairs of frames of each clip."""
        return [consistency(rows) for rows in generated.rows.values()]


class IdentityCosines(PairStage):
    """Cosine between the embeddings of a generated frame and of its partner."""

    name = "id-similarity"

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's face recognition network."""
        return protocol.identity_network

    def frame_rows(self, clip: Clip) -> Float32[np.ndarray, "frames numbers"]:
        """A cosine for each frame."""
        assert self.network is not None
        both = (clip.frames, clip.maps[TARGET])
        first, second = (self.network(frames.to(self.device)).float().cpu() for frames in both)
        return torch.nn.functional.cosine_similarity(first.double(), second.double()).float().numpy()[:, None]


class IdentitySimilarity(PairMeasure):
    """Cosine similarity of face embeddings with the person who should be shown (CSIM).

    Self-reenactment compares with the true frames; cross-reenactment with the source portrait, which is given as
    ``references``. Whole frames are embedded, as PV3D does: align faces before, if the published number did.
    """

    name = "id-similarity"
    title = "ID similarity"
    stage_type = IdentityCosines
    higher_is_better = True
    by_reference = True


class FaceDifferences(PairStage):
    """Mean absolute difference of a quantity of the two faces of a frame."""

    quantity: ClassVar[Quantity]
    title: ClassVar[str]

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        super().__init__(protocol, networks)
        self._reconstruction = networks.reconstruction

    @property
    def key(self) -> dict[str, object]:
        """Who reads the quantity off the frames matters too."""
        return super().key | {"reconstruction": getattr(self._reconstruction, "checksum", None)}

    def frame_rows(self, clip: Clip) -> Float32[np.ndarray, "frames numbers"]:
        """A difference for each frame; NaN where a face is not found."""
        ours = self._read(clip.frames, clip.maps.get(self.quantity))
        theirs = self._read(clip.maps[TARGET], clip.maps.get(f"{TARGET}_{self.quantity}"))
        if ours.shape != theirs.shape:
            raise ZooError(
                f"{self.title} compares {self.quantity} of one shape, not {list(ours.shape)} and {list(theirs.shape)}: "
                "read both sides with the same reconstruction"
            )
        return (ours - theirs).abs().flatten(1).mean(1).float().numpy()[:, None]

    def _read(self, frames: Tensor, known: Tensor | None) -> Float[Tensor, "frames ..."]:
        if known is not None:
            return known.double()
        if self._reconstruction is None:
            raise ZooError(
                f"{self.title} needs the {self.quantity} of every face: put NAME{SUFFIX} with {self.quantity} "
                "[frames, ...] beside each video on both sides, or give a reconstruction"
            )
        return getattr(self._reconstruction, self.quantity)(frames.to(self.device)).double().cpu()


class KeypointDifferences(FaceDifferences):
    """Differences of keypoints."""

    name = "akd"
    title = "AKD"
    quantity = "keypoints"
    maps = ("keypoints",)


class PoseDifferences(FaceDifferences):
    """Differences of head pose."""

    name = "apd"
    title = "APD"
    quantity = "pose"
    maps = ("pose",)


class ExpressionDifferences(FaceDifferences):
    """Differences of expression coefficients."""

    name = "aed"
    title = "AED"
    quantity = "expression"
    maps = ("expression",)


class AverageKeypointDistance(PairMeasure):
    """Mean absolute difference of facial keypoints, in pixels of the generated frame (Siarohin et al. 2019, section 4).

    It grows with the size of the frames: papers take 256 x 256.
    """

    name = "akd"
    title = "AKD"
    stage_type = KeypointDifferences
    empty = "no face was found in both frames of any pair"


class AveragePoseDistance(PairMeasure):
    """Mean absolute difference of head pose, in the unit of the reconstruction (degrees for Euler angles)."""

    name = "apd"
    title = "APD"
    stage_type = PoseDifferences
    empty = "no face was found in both frames of any pair"


class AverageExpressionDistance(PairMeasure):
    """Mean absolute difference of expression coefficients; numbers of different reconstructions do not compare."""

    name = "aed"
    title = "AED"
    stage_type = ExpressionDifferences
    empty = "no face was found in both frames of any pair"
