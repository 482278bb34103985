"""What ``evaluate`` can measure, by name.

A stage turns items into rows that can be cached, shared and split over processes, and a measure turns rows into a
value; the formulas are those of the Metric classes and functions in the modules of :mod:`portraitzoo.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from portraitzoo.errors import ZooError
from portraitzoo.metrics.measures.base import Measure, prepared
from portraitzoo.metrics.measures.faces import (
    AverageExpressionDistance,
    AverageKeypointDistance,
    AveragePoseDistance,
    IdentityOverTime,
    IdentitySimilarity,
)
from portraitzoo.metrics.measures.frechet import FID, FVD, FrechetMeasure
from portraitzoo.metrics.measures.paired import (
    L1,
    LPIPSVGG,
    MSSSIM,
    PSNR,
    SSIM,
    FullPSNR,
    LPIPSAlex,
    ValidPSNR,
)
from portraitzoo.metrics.measures.paths import LatentPathLength, PathLength
from portraitzoo.metrics.measures.sets import (
    KID,
    Coverage,
    Density,
    ImageInceptionScore,
    Precision,
    Recall,
    VideoInceptionScore,
)
from portraitzoo.metrics.measures.subjects import Chamfer, Identity, Warping

__all__ = ["MEASURES", "FrechetMeasure", "Measure", "measures_named", "prepared"]

MEASURES: dict[str, type[Measure]] = {
    measure.name: measure
    for measure in (
        *(FVD, FID, KID, ImageInceptionScore, VideoInceptionScore),
        *(Precision, Recall, Density, Coverage),
        *(PathLength, LatentPathLength),
        *(PSNR, FullPSNR, ValidPSNR, SSIM, MSSSIM, L1, LPIPSAlex, LPIPSVGG),
        *(IdentitySimilarity, AverageKeypointDistance, AveragePoseDistance, AverageExpressionDistance),
        *(Identity, IdentityOverTime, Chamfer, Warping),
    )
}


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
