"""Numbers of heads that are seen twice from two sides: identity, Chamfer distance, warping error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.chamfer import ChamferDistance
from portraitzoo.metrics.identity import identity_consistency
from portraitzoo.metrics.measures.base import Networks, Stage
from portraitzoo.metrics.measures.items import ItemMeasure
from portraitzoo.metrics.multiview import PAIRS
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered
from portraitzoo.metrics.warping import MultiViewWarpingError
from portraitzoo.rendering.cameras import Camera


class Embeddings(Stage):
    """A face embedding for each frame."""

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's face recognition network."""
        return protocol.identity_network

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """An embedding for each frame."""
        assert self.network is not None
        frames = torch.cat([clip.frames for clip in clips]).split(4 * self.batch_size)
        found = torch.cat([self.network(batch.to(self.device)).float().cpu() for batch in frames])
        return [part.numpy() for part in found.split([len(clip.frames) for clip in clips])]


class ViewEmbeddings(Embeddings):
    """A face embedding for each view of a head."""

    name = "views"
    need = "subjects"


class ChamferPairs(Stage):
    """Chamfer distances of the four (front, side) pairs of a head."""

    name = "chamfer"
    need = "subjects"
    maps = ("position", "opacity")
    finite = False

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Distances of the four pairs."""
        position = torch.stack([clip.maps["position"] for clip in clips]).to(self.device)
        opacity = torch.stack([clip.maps["opacity"] for clip in clips]).to(self.device)
        return list(ChamferDistance.pair_values(position, opacity).float().cpu().numpy()[:, None])


class WarpingPairs(Stage):
    """Warping errors of the four (front, side) pairs of a head."""

    name = "warping"
    need = "subjects"
    maps = ("depth",)
    finite = False

    def __init__(self, protocol: Protocol, networks: Networks) -> None:
        super().__init__(protocol, networks)
        self._metric = MultiViewWarpingError(yaw=protocol.yaw, size=protocol.warping_size)

    @property
    def key(self) -> dict[str, object]:
        """The size at which views are compared matters too."""
        return super().key | {"size": self.protocol.warping_size}

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Errors of the four pairs."""
        images = torch.stack([clip.frames for clip in clips]).to(self.device)
        depth = torch.stack([clip.maps["depth"] for clip in clips]).to(self.device)
        tracks = [clip.cameras for clip in clips]
        cameras = [None if track is None else Camera(track.cam2world, track.intrinsics) for track in tracks]
        return list(self._metric.pair_values(images, depth, cameras).float().cpu().numpy()[:, None])


class SubjectMeasure(ItemMeasure):
    """A number for each pair of views of a head."""

    unit = "heads"
    part = "pairs of views"
    empty = "no pair of views sees a surface in common, so there is nothing to measure"

    def values(self, generated: Gathered) -> list[Float[np.ndarray, " parts"]]:
        """Numbers of the pairs."""
        return [row.astype(np.float64).ravel() for row in generated.rows.values()]

    def extra(self, values: list[Float[np.ndarray, " parts"]]) -> dict[str, float]:
        """Means over the pairs at one time and over those across times."""
        pairs, same = np.stack(values), len(PAIRS) // 2
        parts = {"same_time": pairs[:, :same], "across_times": pairs[:, same:]}
        return {name: float(np.nanmean(part)) for name, part in parts.items() if np.isfinite(part).any()}


class Identity(SubjectMeasure):
    """Cosine similarity of face embeddings between the views of a head (PV3D, section 4.1, "ID")."""

    name = "identity"
    title = "ID"
    stage_type = ViewEmbeddings
    higher_is_better = True

    def values(self, generated: Gathered) -> list[Float[np.ndarray, " parts"]]:
        """Mean over the pairs of views of each head."""
        return [consistency(rows) for rows in generated.rows.values()]

    def extra(self, values: list[Float[np.ndarray, " parts"]]) -> dict[str, float]:
        """Nothing more."""
        return {}


class Chamfer(SubjectMeasure):
    """Chamfer distance between the surfaces seen in two views."""

    name = "chamfer"
    title = "Chamfer"
    stage_type = ChamferPairs

    def extra(self, values: list[Float[np.ndarray, " parts"]]) -> dict[str, float]:
        """The sum over all pairs too: PV3D's program prints it as the average."""
        return super().extra(values) | {"sum": float(np.nansum(np.stack(values)))}


class Warping(SubjectMeasure):
    """Error of one view warped into another by the rendered depth, in grey levels."""

    name = "warping"
    title = "Warping error"
    stage_type = WarpingPairs


def consistency(rows: Float32[np.ndarray, "frames features"]) -> Float[np.ndarray, " 1"]:
    """Mean cosine over all pairs of embeddings."""
    return identity_consistency(torch.from_numpy(rows)).numpy()[None]
