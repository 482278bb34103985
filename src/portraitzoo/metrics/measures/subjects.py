"""Numbers of heads that are seen twice from two sides: identity, Chamfer distance, warping error."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.chamfer import ChamferDistance
from portraitzoo.metrics.features import Weights
from portraitzoo.metrics.identity import identity_consistency
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.multiview import PAIRS
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered, Result
from portraitzoo.metrics.warping import MultiViewWarpingError


class SubjectMeasure(Measure):
    """A number for each head that is seen twice from two sides."""

    need = "subjects"

    @abstractmethod
    def values(self, generated: Gathered) -> Float[np.ndarray, "heads pairs"]:
        """Numbers of each head; NaN where a pair of views sees nothing."""

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean over all numbers, standard deviation over heads."""
        values = self.values(generated)
        usable = np.isfinite(values)
        if not usable.any():
            raise ZooError(f"{self.title}: no pair of views sees a surface in common, so there is nothing to measure")
        skipped = int((~usable).sum())
        heads = np.array([row[mask].mean() for row, mask in zip(values, usable, strict=True) if mask.any()])
        result = Result(
            metric=self.name,
            title=self.title,
            value=float(values[usable].mean()),
            std=float(heads.std()),
            higher_is_better=self.higher_is_better,
            unit="heads",
            generated=len(values),
            real=None,
            notes=[f"{skipped} of {values.size} pairs of views skipped: empty"] if skipped else [],
            extra={"median": float(np.median(heads)), **self.extra(values)},
            plots={"values": heads.tolist()},
        )
        return self._described(result)

    def extra(self, values: Float[np.ndarray, "heads pairs"]) -> dict[str, float]:
        """Further numbers: means over the pairs at one time and over those across times."""
        same = [PAIRS[:2], PAIRS[2:]]
        parts = {"same_time": values[:, : len(same[0])], "across_times": values[:, len(same[0]) :]}
        return {name: float(np.nanmean(part)) for name, part in parts.items() if np.isfinite(part).any()}


class Identity(SubjectMeasure):
    """Cosine similarity of face embeddings between the views of a head."""

    name = "identity"
    title = "ID"
    higher_is_better = True

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's face recognition network."""
        return protocol.identity_network

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """An embedding for each view."""
        assert self.network is not None
        views = torch.stack([clip.frames for clip in clips]).to(self.device)
        return list(self.network(views.flatten(0, 1)).float().cpu().unflatten(0, views.shape[:2]).numpy())

    def values(self, generated: Gathered) -> Float[np.ndarray, "heads pairs"]:
        """Mean over the pairs of views of each head."""
        embeddings = torch.from_numpy(np.stack(list(generated.rows.values())))
        return identity_consistency(embeddings).numpy()[:, None]

    def extra(self, values: Float[np.ndarray, "heads pairs"]) -> dict[str, float]:
        """Nothing more."""
        return {}


class PairMeasure(SubjectMeasure):
    """A number for each of the four (front, side) pairs of a head."""

    finite = False

    def values(self, generated: Gathered) -> Float[np.ndarray, "heads pairs"]:
        """Numbers of the pairs."""
        return np.concatenate(list(generated.rows.values())).astype(np.float64)


class Chamfer(PairMeasure):
    """Chamfer distance between the surfaces seen in two views."""

    name = "chamfer"
    title = "Chamfer"
    maps = ("position", "opacity")

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Distances of the four pairs."""
        position = torch.stack([clip.maps["position"] for clip in clips]).to(self.device)
        opacity = torch.stack([clip.maps["opacity"] for clip in clips]).to(self.device)
        return list(ChamferDistance.pair_values(position, opacity).float().cpu().numpy()[:, None])

    def extra(self, values: Float[np.ndarray, "heads pairs"]) -> dict[str, float]:
        """The sum over all pairs too: PV3D's program prints it as the average."""
        return super().extra(values) | {"sum": float(np.nansum(values))}


class Warping(PairMeasure):
    """Error of one view warped into another by the rendered depth, in grey levels."""

    name = "warping"
    title = "Warping error"
    maps = ("depth",)

    def __init__(self, protocol: Protocol, weights: Weights, device: torch.device, batch_size: int) -> None:
        super().__init__(protocol, weights, device, batch_size)
        self._metric = MultiViewWarpingError(yaw=protocol.yaw, size=protocol.warping_size)

    @property
    def key(self) -> dict[str, object]:
        """The size at which views are compared matters too."""
        return super().key | {"size": self.protocol.warping_size}

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Errors of the four pairs."""
        images = torch.stack([clip.frames for clip in clips]).to(self.device)
        depth = torch.stack([clip.maps["depth"] for clip in clips]).to(self.device)
        return list(self._metric.pair_values(images, depth).float().cpu().numpy()[:, None])
