"""Perceptual path length of generators that let their latents be moved by a small step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.measures.base import Measure, Stage
from portraitzoo.metrics.measures.paired import perceptual
from portraitzoo.metrics.path_length import shrunk, trimmed_mean
from portraitzoo.metrics.paths import END, START
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.results import Gathered, Result
from portraitzoo.metrics.sources import Need


class PathSteps(Stage):
    """LPIPS-VGG between the two ends of a step, divided by the square of its length."""

    maps = (START, END)

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The index entry of LPIPS on VGG-16, as in StyleGAN."""
        return "lpips-vgg"

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """One distance for each step."""
        ends = (torch.stack([clip.maps[name][0] for clip in clips]) for name in (START, END))
        start, end = (shrunk(images.to(self.device)) for images in ends)
        distances = perceptual(self, start, end).double() / self.protocol.path_epsilon**2
        return list(distances.float().cpu().numpy()[:, None, None])


class StyleSteps(PathSteps):
    """Steps along straight lines in W."""

    name = "path-w"
    need: ClassVar[Need] = "paths-w"


class LatentSteps(PathSteps):
    """Steps along great circles in Z."""

    name = "path-z"
    need: ClassVar[Need] = "paths-z"


class PathMeasure(Measure):
    """Perceptual path length at the beginning of paths (Karras et al. 2019, section 4.1)."""

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean of the distances between the 1st and the 99th percentile."""
        rows = torch.from_numpy(generated.matrix()[:, 0])
        names = [generated.names[index] for index in generated.rows]
        result = Result(
            metric=self.name,
            title=self.title,
            value=float(trimmed_mean(rows)),
            std=float(rows.double().std(correction=0)),
            higher_is_better=False,
            unit="paths",
            generated=len(rows),
            real=None,
            extra={"epsilon": self.protocol.path_epsilon},
            items=list(zip(names, rows.tolist(), strict=True)),
        )
        return self._described(result)


class PathLength(PathMeasure):
    """Perceptual path length in W (StyleGAN's ``ppl2_wend``)."""

    name = "ppl"
    title = "PPL (W)"
    stage_type = StyleSteps


class LatentPathLength(PathMeasure):
    """Perceptual path length in Z (``ppl_zend``)."""

    name = "ppl-z"
    title = "PPL (Z)"
    stage_type = LatentSteps
