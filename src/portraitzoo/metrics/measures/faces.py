"""Numbers of the faces in clips and pairs: the same person, the same keypoints, pose and expression."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.measures.base import NOT_COMPARABLE, Networks, Stage
from portraitzoo.metrics.measures.items import ItemMeasure
from portraitzoo.metrics.measures.paired import PairMeasure, PairStage
from portraitzoo.metrics.measures.subjects import Embeddings, consistency
from portraitzoo.metrics.pairs import TARGET
from portraitzoo.metrics.protocol_faces import ProtocolFaces
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.reconstruction import SUFFIX, Quantity
from portraitzoo.metrics.results import Gathered, Result


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
    """Mean absolute difference of a quantity of the two faces of a frame, and whether a network had to find it."""

    quantity: ClassVar[Quantity]
    title: ClassVar[str]

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        super().__init__(protocol, networks)
        self.faces = networks.faces(protocol)

    @property
    def key(self) -> dict[str, object]:
        """Who reads the quantity off the frames matters too."""
        return super().key | {"reconstruction": self.faces.checksum}

    def frame_rows(self, clip: Clip) -> Float32[np.ndarray, "frames 2"]:
        """A difference for each frame, NaN where a face is not found; and 1 where numbers were not in files, else 0."""
        known = clip.maps.get(self.quantity), clip.maps.get(f"{TARGET}_{self.quantity}")
        ours, theirs = self._read(clip.frames, known[0]), self._read(clip.maps[TARGET], known[1])
        if ours.shape != theirs.shape:
            raise ZooError(
                f"{self.title} compares {self.quantity} of one shape, not {list(ours.shape)} and {list(theirs.shape)}: "
                f"read both sides with the same reconstruction, or write NAME{SUFFIX} for both"
            )
        difference = (ours - theirs).abs().flatten(1).mean(1)
        looked = torch.full_like(difference, any(values is None for values in known))
        return torch.stack([difference, looked], dim=1).float().numpy()

    def _read(self, frames: Tensor, known: Tensor | None) -> Float[Tensor, "frames ..."]:
        if known is not None:
            return known.double()
        return getattr(self.faces, self.quantity)(frames.to(self.device)).double().cpu()


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


class FaceDistance(PairMeasure):
    """A difference of two faces; the report names the networks that saw them, where numbers were not in files."""

    empty = "no face was found in both frames of any pair"

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean over all frames."""
        result, stage = super().result(generated, real), self.stage
        assert isinstance(stage, FaceDifferences)
        if isinstance(stage.faces, ProtocolFaces) and any(rows[:, 1].any() for rows in generated.rows.values()):
            result.network = stage.faces.description(stage.quantity)
            if not result.comparable:
                result.notes.insert(0, NOT_COMPARABLE)
        return result


class AverageKeypointDistance(FaceDistance):
    """Mean absolute difference of facial keypoints, in pixels of the generated frame (Siarohin et al. 2019, section 4).

    It grows with the size of the frames: papers take 256 x 256.
    """

    name = "akd"
    title = "AKD"
    stage_type = KeypointDifferences


class AveragePoseDistance(FaceDistance):
    """Mean absolute difference of head pose: of angles in degrees, unless a reconstruction of one's own has others."""

    name = "apd"
    title = "APD"
    stage_type = PoseDifferences


class AverageExpressionDistance(FaceDistance):
    """Mean absolute difference of expression coefficients; numbers of different reconstructions do not compare."""

    name = "aed"
    title = "AED"
    stage_type = ExpressionDifferences
