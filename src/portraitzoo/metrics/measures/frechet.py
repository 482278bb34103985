"""Fréchet distances between the features of two sets: FVD and FID."""

from __future__ import annotations

from typing import ClassVar

from portraitzoo.metrics.extremes import by_neighbours
from portraitzoo.metrics.feature_space import examine
from portraitzoo.metrics.frechet import FeatureStatistics, frechet_distance
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.measures.features import ImageFeatures, VideoFeatures
from portraitzoo.metrics.results import KEPT_ROWS, Gathered, Result


class FrechetMeasure(Measure):
    """Fréchet distance between the features of both sides."""

    two_sided = True
    kept_rows: float = KEPT_ROWS
    """How many rows stay beside the sums."""

    def gatherer(self) -> Gathered:
        """Running sums, and the first rows."""
        assert self.network is not None
        info = {
            "network": self.network.name,
            "checksum": self.network.checksum,
            "protocol": {name: getattr(self.protocol, name) for name in self.decisive},
        }
        statistics = FeatureStatistics(self.network.num_features, ddof=self.protocol.ddof, info=info)
        return Gathered(statistics, self.kept_rows)

    decisive: ClassVar[tuple[str, ...]]
    """Protocol fields that saved statistics must share."""

    unit: ClassVar[str]

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """The distance, how sure it is, how it falls with the number of items, and both sets on a plane."""
        assert real is not None and generated.statistics is not None and real.statistics is not None
        ours, theirs = generated.statistics, real.statistics
        counts = {"generated": ours.num_items, "real": theirs.num_items}
        few = [side for side, statistics in (("generated", ours), ("real", theirs)) if statistics.rank_deficient]
        said = " and ".join(f"{counts[side]} {side}" for side in few)
        doubt = f"rank-deficient ({said} {self.unit} for {ours.num_features} features)" if few else None
        value = float(frechet_distance(ours, theirs))
        seen = examine(generated, real, value, self.protocol.ddof)
        result = Result(
            metric=self.name,
            title=self.title,
            value=value,
            std=None,
            higher_is_better=False,
            unit=self.unit,
            generated=ours.num_items,
            real=theirs.num_items,
            doubt=doubt,
            notes=[doubt] if doubt else [],
            extra={"ddof": self.protocol.ddof},
            plots=seen.plots,
            interval=seen.interval,
            extremes=by_neighbours(generated, real),
        )
        return self._described(result)


class FVD(FrechetMeasure):
    """Fréchet video distance: one I3D vector for each clip."""

    name = "fvd"
    title = "FVD"
    stage_type = VideoFeatures
    unit = "clips"
    decisive = ("clip_length", "frame_stride", "crop", "size", "resize", "resized", "real_compression", "ddof")


class FID(FrechetMeasure):
    """Fréchet inception distance: one Inception vector for each frame."""

    name = "fid"
    title = "FID"
    stage_type = ImageFeatures
    unit = "images"
    decisive = ("crop", "size", "resize", "resized", "real_compression", "inception_path", "ddof")
