"""Two sets of feature vectors looked at: how sure their distance is, how it falls with their number, on a plane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portraitzoo.metrics import bootstrap
from portraitzoo.metrics.bootstrap import Interval
from portraitzoo.metrics.frechet import FeatureStatistics
from portraitzoo.metrics.results import KEPT_ROWS, Gathered

PLANE_POINTS = 400  # of each side in the scatter plot
CURVE_LIMIT = 1024  # items of each side up to which the curve is computed
CURVE_LEAST = 4  # fewer items say nothing


@dataclass(frozen=True)
class Examination:
    """What can be said of a Fréchet distance beside its value.

    Attributes:
        interval: how far the choice of items moves it; None without rows.
        plots: ``convergence``, a list of [items, distance, low, high], and ``plane``; see the functions of this module.
    """

    interval: Interval | None
    plots: dict[str, Any] = field(default_factory=dict)


def examine(generated: Gathered, real: Gathered, value: float, ddof: int) -> Examination:
    """Look closer at a Fréchet distance.

    A side of which only statistics are known is taken as fixed: the interval is then that of the other side's items.

    Args:
        generated: rows of one side.
        real: rows, or only statistics, of the other.
        value: their distance.
        ddof: divisor of covariances is n - ddof.
    """
    tensors = [_rows(side, ddof) for side in (generated, real)]
    if not (generated.rows or real.rows) or min(len(rows) for rows in tensors) < 2:
        return Examination(None)
    _, *influences = bootstrap.frechet_influences(tensors[0], tensors[1], ddof)
    varying = [
        bootstrap.of_owners(found, _owners(side, side.rows), _share(side))
        for side, found in zip((generated, real), influences, strict=True)
        if side.rows
    ]
    plane = principal_plane(generated.matrix(), real.matrix())
    plots = {"convergence": convergence(generated, real, ddof), "plane": plane}
    return Examination(bootstrap.of_distance(value, varying), plots)


def kernel_interval(generated: Gathered, real: Gathered, value: float, scale: float) -> Interval | None:
    """Interval of a kernel inception distance that was multiplied by ``scale``; None where a side is of one video."""
    sides = [(side, _first(side)) for side in (generated, real)]
    rows = [torch.from_numpy(np.concatenate([side.rows[item] for item in items])) for side, items in sides]
    influences = bootstrap.kernel_influences(rows[0], rows[1])
    varying = [
        bootstrap.of_owners(found * scale, _owners(side, items), len(found) / sum(map(len, side.rows.values())))
        for (side, items), found in zip(sides, influences, strict=True)
    ]
    return bootstrap.of_distance(value, varying, floor=None)


def _first(side: Gathered) -> list[int]:
    """The first items, as many as have ``KEPT_ROWS`` rows: all pairs of rows are looked at."""
    ends = np.cumsum([len(rows) for rows in side.rows.values()])
    return list(side.rows)[: 1 + int(np.searchsorted(ends, KEPT_ROWS))]


def _owners(side: Gathered, items: Iterable[int]) -> list[str]:
    """To what each row of these items belongs: windows of one video have one name."""
    return [side.names.get(item) or str(item) for item in items for _ in range(len(side.rows[item]))]


def _share(side: Gathered) -> float:
    """Share of the rows behind the statistics that was kept."""
    kept = sum(map(len, side.rows.values()))
    return 1.0 if side.statistics is None else kept / side.statistics.num_items


def _rows(side: Gathered, ddof: int) -> Float[Tensor, "rows features"]:
    if side.rows:
        return torch.from_numpy(side.matrix()).double()
    assert side.statistics is not None
    return rows_like(side.statistics, ddof)


def rows_like(statistics: FeatureStatistics, ddof: int) -> Float[Tensor, "rows features"]:
    """The fewest vectors, in pairs around the mean, that have the mean and covariance of ``statistics``, float64."""
    values, vectors = torch.linalg.eigh(statistics.cov)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    count = max(int(kept.sum()), 1)
    steps = (vectors[:, -count:] * (values[-count:].clamp(min=0) * (2 * count - ddof) / 2).sqrt()).T
    return statistics.mean + torch.cat([steps, -steps])


def frechet_of_rows(
    first: Float[np.ndarray, "rows features"], second: Float[np.ndarray, "others features"], ddof: int = 0
) -> float:
    """Fréchet distance between two sets of vectors, see :func:`~portraitzoo.metrics.bootstrap.frechet_influences`."""
    return bootstrap.frechet_influences(torch.from_numpy(first), torch.from_numpy(second), ddof)[0]


def convergence(
    generated: Gathered, real: Gathered, ddof: int = 0, seed: int = 0
) -> list[tuple[int, float, float | None, float | None]]:
    """Fréchet distance for growing numbers of items, drawn without replacement, and its bootstrap interval.

    A side of which only statistics are known stands as it is; otherwise both sides grow together.

    Args:
        generated: rows of one side.
        real: rows, or only statistics, of the other.
        ddof: divisor of covariances is n - ddof.
        seed: of the draw.

    Returns:
        (number of rows, distance, lower and upper end of the interval), rising; the ends are None where all rows are of
        one video. Empty for fewer than eight rows.
    """
    sides = [side for side in (generated, real) if side.rows]
    most = min((len(side.rows) for side in sides), default=0)
    width = max((len(rows) for side in sides for rows in side.rows.values()), default=1)
    if most * width < 2 * CURVE_LEAST:
        return []
    most = min(most, max(CURVE_LIMIT // width, 1))
    counts = sorted({round(most * 2**-step) for step in np.arange(0, 3.5, 0.5)})
    orders = [np.random.default_rng([seed, number]).permutation(list(side.rows)) for number, side in enumerate(sides)]
    fixed = [_rows(side, ddof) for side in (generated, real) if not side.rows]
    curve: list[tuple[int, float, float | None, float | None]] = []
    for count in (count for count in counts if count * width >= CURVE_LEAST and count > 1):
        chosen = [order[:count] for order in orders]
        rows = [
            torch.from_numpy(np.concatenate([side.rows[item] for item in items]))
            for side, items in zip(sides, chosen, strict=True)
        ]
        first, second = (rows + fixed)[:2]
        value, *influences = bootstrap.frechet_influences(first, second, ddof)
        varying = [
            bootstrap.of_owners(found, _owners(side, items))
            for side, items, found in zip(sides, chosen, influences, strict=False)
        ]
        interval = bootstrap.of_distance(value, varying)
        ends = (interval.low, interval.high) if interval else (None, None)
        curve.append((len(rows[0]), value, *ends))
    return curve


def principal_plane(generated: NDArray[np.float32], real: NDArray[np.float32]) -> dict[str, object]:
    """Both sets on the two directions in which they vary most together.

    Returns:
        ``generated`` and ``real`` as lists of (x, y), at most ``PLANE_POINTS`` of each, and ``explained``: shares of
        variance along x and y. Empty if there are too few samples.
    """
    sides = [_thinned(rows) for rows in (generated, real)]
    if min(len(rows) for rows in sides) < 2:
        return {}
    pooled = torch.from_numpy(np.concatenate(sides).astype(np.float64))
    centred = pooled - pooled.mean(0)
    _, scales, axes = torch.linalg.svd(centred, full_matrices=False)
    # The sign of a principal direction is arbitrary: fix it, so that equal features give equal plots.
    signs = torch.sign(axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)))
    points = (centred @ (axes[:2] * signs).T).numpy().round(6)
    variance = scales.square()
    explained = (variance[:2] / variance.sum().clamp(min=1e-300)).tolist()
    split = len(sides[0])
    return {"generated": points[:split].tolist(), "real": points[split:].tolist(), "explained": explained}


def _thinned(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most ``PLANE_POINTS`` rows, evenly spaced."""
    if len(rows) <= PLANE_POINTS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, PLANE_POINTS).round().astype(int)]
