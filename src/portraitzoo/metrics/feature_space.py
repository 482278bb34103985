"""Two sets of feature vectors looked at: how sure their distance is, how it falls with their number, on a plane."""

from __future__ import annotations

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
from portraitzoo.metrics.results import Gathered

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
    sides = [side for side in (generated, real) if side.rows]
    tensors = [_rows(side, ddof) for side in (generated, real)]
    if not sides or min(len(rows) for rows in tensors) < 2:
        return Examination(None)
    _, *influences = bootstrap.frechet_influences(tensors[0], tensors[1], ddof)
    varying = [
        bootstrap.of_items(found, [len(rows) for rows in side.rows.values()], _items_in_all(side))
        for side, found in zip((generated, real), influences, strict=True)
        if side.rows
    ]
    plane = principal_plane(generated.matrix(), real.matrix())
    plots = {"convergence": convergence(generated, real, ddof), "plane": plane}
    return Examination(bootstrap.of_frechet(value, varying), plots)


def _items_in_all(side: Gathered) -> float:
    """Items behind the statistics, also where only the first rows were kept."""
    kept = sum(map(len, side.rows.values()))
    all_rows = side.statistics.num_items if side.statistics is not None else kept
    return len(side.rows) * all_rows / kept


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
) -> list[tuple[int, float, float, float]]:
    """Fréchet distance for growing numbers of items, drawn without replacement, and its bootstrap interval.

    A side of which only statistics are known stands as it is; otherwise both sides grow together.

    Args:
        generated: rows of one side.
        real: rows, or only statistics, of the other.
        ddof: divisor of covariances is n - ddof.
        seed: of the draw.

    Returns:
        (number of rows, distance, lower and upper end of the interval), rising; empty for fewer than eight rows.
    """
    sides = [list(side.rows.values()) for side in (generated, real)]
    most = min([len(rows) for rows in sides if rows], default=0)
    width = max((len(rows[0]) for rows in sides if rows), default=1)
    most = min(most, max(CURVE_LIMIT // width, 1))
    counts = sorted({round(most * 2**-step) for step in np.arange(0, 3.5, 0.5)})
    counts = [count for count in counts if count * width >= CURVE_LEAST and count > 1]
    if most * width < 2 * CURVE_LEAST:
        return []
    orders = [np.random.default_rng([seed, side]).permutation(len(rows)) for side, rows in enumerate(sides)]
    fixed = None if real.rows else _rows(real, ddof)
    curve = []
    for count in counts:
        chosen = [[rows[i] for i in order[:count]] for rows, order in zip(sides, orders, strict=True)]
        ours = torch.from_numpy(np.concatenate(chosen[0])).double()
        theirs = torch.from_numpy(np.concatenate(chosen[1])).double() if fixed is None else fixed
        value, *influences = bootstrap.frechet_influences(ours, theirs, ddof)
        varying = [
            bootstrap.of_items(found, list(map(len, rows)))
            for found, rows in zip(influences, chosen, strict=True)
            if rows
        ]
        interval = bootstrap.of_frechet(value, varying)
        assert interval is not None
        curve.append((len(ours), value, interval.low, interval.high))
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
