"""What ``evaluate`` can measure: each metric's needs, its feature rows, and its value from the rows of both sides.

A measure turns clips into rows that can be cached and split over processes; the formulas are those of the Metric
classes beside this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics.chamfer import ChamferDistance
from portraitzoo.metrics.feature_space import convergence, principal_plane
from portraitzoo.metrics.features import FeatureNetwork, Weights, feature_network
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.identity import identity_consistency
from portraitzoo.metrics.multiview import PAIRS
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered, Result
from portraitzoo.metrics.sources import Need
from portraitzoo.metrics.warping import MultiViewWarpingError

MIN_I3D_FRAMES = 9  # I3D halves time three times and pools two steps


class Measure(ABC):
    """One metric under one protocol.

    Attributes:
        name: as given to ``evaluate``.
        title: name in tables.
        need: what the sources must give.
        maps: maps that subjects must have.
        two_sided: whether the real side matters.
        finite: whether rows that are not finite are an error (else they are pairs that see nothing).
        higher_is_better: direction.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    need: ClassVar[Need]
    maps: ClassVar[tuple[str, ...]] = ()
    two_sided: ClassVar[bool] = False
    finite: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = False

    def __init__(self, protocol: Protocol, weights: Weights, device: torch.device, batch_size: int) -> None:
        self.protocol = protocol
        self.device = device
        self.batch_size = batch_size
        name = self.network_name(protocol)
        self.network: FeatureNetwork | None = None if name is None else feature_network(name, weights, device)

    @classmethod
    def network_name(cls, protocol: Protocol) -> str | None:
        """Index entry of the feature network; None if the metric needs none."""
        return None

    @property
    def key(self) -> dict[str, object]:
        """What the rows depend on beside the clips: part of the cache's key."""
        network = None if self.network is None else self.network.checksum
        return {"measure": self.name, "network": network, "device": self.device.type}

    def gatherer(self) -> Gathered:
        """An empty collection of this measure's rows."""
        return Gathered(None)

    @abstractmethod
    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """Feature rows of each clip; the clips have one shape."""

    @abstractmethod
    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """The value, from the rows of both sides."""

    def _described(self, result: Result) -> Result:
        if self.network is not None:
            result.network = {
                "name": self.network.name,
                "checksum": self.network.checksum,
                "features": self.network.num_features,
                "comparable": self.network.comparable,
            }
            if not self.network.comparable:
                result.notes.insert(0, "not comparable")
        return result


class FrechetMeasure(Measure):
    """Fréchet distance between the features of both sides."""

    two_sided = True

    def gatherer(self) -> Gathered:
        """Running sums, and the first rows."""
        assert self.network is not None
        info = {
            "network": self.network.name,
            "checksum": self.network.checksum,
            "protocol": {name: getattr(self.protocol, name) for name in self.decisive},
        }
        return Gathered(FeatureStatistics(self.network.num_features, ddof=self.protocol.ddof, info=info))

    def check(self, label: str, statistics: FeatureStatistics) -> None:
        """Find out whether saved statistics may stand on one side.

        Raises:
            ZooError: if they are of another network, of unknown origin while the network's weights are random, or were
                made by a protocol that differs in a field that matters.
        """
        assert self.network is not None
        checksum = statistics.info.get("checksum")
        if statistics.num_features != self.network.num_features:
            raise ZooError(
                f"{label} has {statistics.num_features} features and {self.title} takes {self.network.num_features} "
                f"({self.network.name}): these are statistics of another network"
            )
        if checksum != self.network.checksum and (checksum is not None or not self.network.comparable):
            raise ZooError(
                f"{label} was made with {statistics.info.get('network', 'released weights')}, not with "
                f"{self.network.name}: their features cannot be compared"
            )
        theirs = {"ddof": statistics.ddof, **statistics.info.get("protocol", {})}
        for name in self.decisive:
            if name in theirs and theirs[name] != getattr(self.protocol, name):
                raise ZooError(
                    f"{label} was made with {name} {theirs[name]}, this evaluation has {getattr(self.protocol, name)}: "
                    f"make the statistics again or set {name}"
                )

    decisive: ClassVar[tuple[str, ...]]
    """Protocol fields that saved statistics must share."""

    unit: ClassVar[str]

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """The distance, how it falls with the number of samples, and both sets on their principal plane."""
        assert real is not None and generated.statistics is not None and real.statistics is not None
        ours, theirs = generated.statistics, real.statistics
        counts = {"generated": ours.num_items, "real": theirs.num_items}
        few = [side for side, statistics in (("generated", ours), ("real", theirs)) if statistics.rank_deficient]
        notes = []
        if few:
            said = " and ".join(f"{counts[side]} {side}" for side in few)
            notes.append(f"rank-deficient ({said} {self.unit} for {ours.num_features} features)")
        rows = generated.matrix(), real.matrix()
        value = float(frechet_distance(ours, theirs))
        curve = convergence(*rows, ddof=self.protocol.ddof)
        result = Result(
            metric=self.name,
            title=self.title,
            value=value,
            std=None,
            higher_is_better=False,
            unit=self.unit,
            generated=ours.num_items,
            real=theirs.num_items,
            notes=notes,
            extra={"ddof": self.protocol.ddof},
            plots={"convergence": curve, "plane": principal_plane(*rows)},
        )
        return self._described(result)


class FVD(FrechetMeasure):
    """Fréchet video distance: one I3D vector for each clip."""

    name = "fvd"
    title = "FVD"
    need = "clips"
    unit = "clips"
    decisive = ("clip_length", "frame_stride", "size", "ddof")

    def __init__(self, protocol: Protocol, weights: Weights, device: torch.device, batch_size: int) -> None:
        if protocol.clip_length < MIN_I3D_FRAMES:
            raise ZooError(f"FVD needs clips of {MIN_I3D_FRAMES} frames or more, not {protocol.clip_length}")
        super().__init__(protocol, weights, device, batch_size)

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's video network."""
        return protocol.video_network

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """One row for each clip."""
        assert self.network is not None
        videos = torch.stack([clip.frames for clip in clips]).to(self.device)
        return list(self.network(videos).float().cpu().numpy()[:, None])


class FID(FrechetMeasure):
    """Fréchet inception distance: one Inception vector for each frame."""

    name = "fid"
    title = "FID"
    need = "images"
    unit = "images"
    decisive = ("size", "ddof")

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The protocol's image network."""
        return protocol.image_network

    @property
    def key(self) -> dict[str, object]:
        """Which frames of a clip are images matters too."""
        return super().key | {"frames": self.protocol.fid_frames}

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """A row for each frame that counts."""
        assert self.network is not None
        taken = [clip.frames if self.protocol.fid_frames == "all" else clip.frames[:1] for clip in clips]
        images = torch.cat(taken).split(4 * self.batch_size)
        features = torch.cat([self.network(batch.to(self.device)).float().cpu() for batch in images])
        return [part.numpy() for part in features.split([len(frames) for frames in taken])]


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


MEASURES: dict[str, type[Measure]] = {measure.name: measure for measure in (FVD, FID, Identity, Chamfer, Warping)}


def measures_named(names: Sequence[str]) -> list[type[Measure]]:
    """The measures of these names, without repetition.

    Raises:
        ZooError: for an unknown name (the nearest is suggested), or none at all.
    """
    for name in names:
        if name not in MEASURES:
            near = get_close_matches(name, MEASURES, n=1)
            hint = f"; did you mean {near[0]}?" if near else f": choose from {', '.join(MEASURES)}"
            raise ZooError(f"no metric is called {name!r}{hint}")
    if not names:
        raise ZooError(f"no metric was asked for: choose from {', '.join(MEASURES)}")
    return [MEASURES[name] for name in dict.fromkeys(names)]
