"""Numbers of whole sets of images or clips: KID, Inception Scores, precision and recall, density and coverage."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from portraitzoo.metrics.feature_space import kernel_interval
from portraitzoo.metrics.inception_score import inception_score, video_inception_score
from portraitzoo.metrics.kid import kernel_inception_distance
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.measures.features import ActionProbabilities, ImageFeatures, ManifoldFeatures
from portraitzoo.metrics.results import Gathered, Result


class SetMeasure(Measure):
    """A number of one set of feature rows, or of two."""

    unit: ClassVar[str] = "images"

    def _found(self, value: Tensor, std: Tensor | None, generated: int, real: int | None, **described: Any) -> Result:
        result = Result(
            metric=self.name,
            title=self.title,
            value=float(value),
            std=None if std is None else float(std),
            higher_is_better=self.higher_is_better,
            unit=self.unit,
            generated=generated,
            real=real,
            **described,
        )
        return self._described(result)


class KID(SetMeasure):
    """Kernel inception distance over seeded subsets, times the protocol's scale; from FID's features."""

    name = "kid"
    title = "KID"
    stage_type = ImageFeatures
    two_sided = True

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean over subsets; the standard deviation is that over subsets."""
        assert real is not None
        protocol = self.protocol
        ours, theirs = torch.from_numpy(generated.matrix()), torch.from_numpy(real.matrix())
        mean, std = kernel_inception_distance(
            theirs,
            ours,
            num_subsets=protocol.kid_subsets,
            max_subset_size=protocol.kid_subset_size,
            seed=protocol.kid_seed,
        )
        size = min(len(ours), len(theirs), protocol.kid_subset_size)
        notes = [f"times {protocol.kid_scale:g}"] if protocol.kid_scale != 1 else []
        if size < protocol.kid_subset_size:
            notes.append(f"subsets of {size} images instead of {protocol.kid_subset_size}")
        extra = {"subsets": protocol.kid_subsets, "subset_size": size, "scale": protocol.kid_scale}
        scale = protocol.kid_scale
        seen = {"interval": kernel_interval(generated, real, float(mean * scale), scale)}
        return self._found(mean * scale, std * scale, len(ours), len(theirs), notes=notes, extra=extra, **seen)


class ImageInceptionScore(SetMeasure):
    """Inception Score over contiguous splits, from FID's features (Inception's logits without bias)."""

    name = "is"
    title = "IS"
    stage_type = ImageFeatures
    higher_is_better = True

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean and standard deviation over splits."""
        assert isinstance(self.stage, ImageFeatures)
        rows = self.stage.probabilities(generated.matrix(), self.title)
        found = inception_score(rows, num_splits=self.protocol.splits)
        return self._found(*found, len(rows), None, extra={"splits": self.protocol.splits})


class VideoInceptionScore(SetMeasure):
    """Inception Score of clips by C3D; meaningful for UCF-101 only, whose classes it knows."""

    name = "video-is"
    title = "Video IS"
    stage_type = ActionProbabilities
    higher_is_better = True
    unit = "clips"

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean and standard deviation over splits of the shuffled clips."""
        rows = torch.from_numpy(generated.matrix())
        found = video_inception_score(rows, num_splits=self.protocol.splits)
        return self._found(*found, len(rows), None, extra={"splits": self.protocol.splits})


class ManifoldMeasure(SetMeasure):
    """One of the shares of two sets in each other's manifold.

    See :func:`~portraitzoo.metrics.precision_recall.manifold_shares`.
    """

    stage_type = ManifoldFeatures
    two_sided = True
    higher_is_better = True

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """The share called as the measure is."""
        assert real is not None and isinstance(self.stage, ManifoldFeatures)
        value = getattr(self.stage.shares(generated, real), self.name)
        extra = {"neighbours": self.protocol.neighbours, "half": self.protocol.half}
        ours, theirs = (sum(map(len, side.rows.values())) for side in (generated, real))
        return self._found(value, None, ours, theirs, extra=extra)


class Precision(ManifoldMeasure):
    """Share of generated images inside the real manifold."""

    name = "precision"
    title = "Precision"


class Recall(ManifoldMeasure):
    """Share of real images inside the generated manifold."""

    name = "recall"
    title = "Recall"


class Density(ManifoldMeasure):
    """How densely generated images lie in the real manifold."""

    name = "density"
    title = "Density"


class Coverage(ManifoldMeasure):
    """Share of real images whose ball holds a generated one."""

    name = "coverage"
    title = "Coverage"
