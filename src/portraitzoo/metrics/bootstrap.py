"""How far a metric would move if other samples had been drawn: bootstrap intervals.

Resampling a Fréchet distance itself is slow (a decomposition for every resample) and wrong: a resample with
replacement repeats items, so its covariances have fewer distinct samples behind them, and the distance, which is biased
upwards the more the fewer they are, comes out too large every time. Here the distance is linearised once, as in Efron's
infinitesimal jackknife, and the bootstrap resamples the influences of the items. That is one decomposition however many
resamples, adds no bias of its own, and agrees with the spread of repeated experiments, for fewer items than features
too (``tests/metrics/test_bootstrap.py``). The bias of a distance that is made from few samples is not part of an
interval; the curve over the number of samples shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portraitzoo.metrics.kid import polynomial_kernel

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0

LINEARISED = "bootstrap of videos, images or seeds, distance linearised at the sample (infinitesimal jackknife)"
OF_MEANS = "bootstrap of items"

_CHUNK = 4_000_000  # numbers that are drawn at once


@dataclass(frozen=True)
class Interval:
    """Where a metric's value lies, as far as the choice of samples goes.

    Attributes:
        low: lower end, not below 0 where the metric cannot be.
        high: upper end.
        std_error: standard deviation over the resamples.
        level: share of repeated experiments whose interval would hold the expected value.
        resamples: how many were drawn; 0 where the interval comes from a formula.
        seed: of the draw.
        method: in words.
    """

    low: float
    high: float
    std_error: float
    level: float = LEVEL
    resamples: int = RESAMPLES
    seed: int = SEED
    method: str = OF_MEANS

    def __str__(self) -> str:
        drawn = f", {self.resamples} resamples, seed {self.seed}" if self.resamples else ""
        return self.method + drawn


def of_mean(
    value: float, items: Sequence[float] | NDArray[np.float64], owners: Sequence[str] | None = None
) -> Interval | None:
    """Percentile interval of ``value``, a mean over items.

    Args:
        value: the mean.
        items: value of each item.
        owners: what each item is a part of (windows of one video): parts of one thing are drawn together.

    Returns:
        None for fewer than two things to draw.
    """
    array = np.asarray(items, dtype=np.float64)
    drawn = array - array.mean() if owners is None else of_owners(array, owners)
    if len(drawn) < 2:
        return None
    return _interval(value, value + _resampled_means(drawn, SEED), floor=None, method=OF_MEANS)


def of_distance(value: float, influences: Sequence[NDArray[np.float64]], floor: float | None = 0.0) -> Interval | None:
    """Percentile interval of a distance between sets.

    Args:
        value: the distance.
        influences: for each side that varies, those of its items (:func:`frechet_influences`,
            :func:`kernel_influences`, then :func:`of_owners`).
        floor: below which the distance cannot lie.

    Returns:
        None if a side has fewer than two items.
    """
    if not influences or min(len(side) for side in influences) < 2:
        return None
    moves = sum(_resampled_means(side - side.mean(), SEED + index) for index, side in enumerate(influences))
    return _interval(value, value + np.asarray(moves), floor, LINEARISED)


def of_owners(
    influences: Float[np.ndarray, " rows"], owners: Sequence[str], share: float = 1.0
) -> Float[np.ndarray, " owners"]:
    """Influences of things that have several rows each and must be resampled as a whole: frames or windows of a video.

    Args:
        influences: those of the rows.
        owners: to what each row belongs.
        share: of all the rows that the value rests on, the share that is given; the spread is scaled to all.
    """
    _, group = np.unique(np.asarray(owners), return_inverse=True)
    sums = np.bincount(group, weights=influences - influences.mean())
    return sums * (len(sums) / len(influences)) * np.sqrt(share)


def frechet_influences(
    first: Float[Tensor, "rows features"], second: Float[Tensor, "others features"], ddof: int = 0
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    r"""Fréchet distance between two sets of vectors, and how each vector moves it.

    With centred rows A (n of them) and B (m), :math:`C = A B^\top / \sqrt{(n - ddof)(m - ddof)} = U S V^\top` gives the
    distance :math:`|\mu_a - \mu_b|^2 + \mathrm{tr}\Sigma_a + \mathrm{tr}\Sigma_b - \mathrm{tr} S` without covariance
    matrices. A weight :math:`w_i` on row i enters C as :math:`\sqrt{w_i}`, which gives row i the influence
    :math:`2 (\mu_a - \mu_b) a_i + |a_i|^2 - n \sum_k S_k U_{ik}^2` (up to a constant), and rows of B theirs by V.

    Args:
        first: rows of one side.
        second: rows of the other.
        ddof: divisor of covariances is n - ddof.

    Returns:
        the distance, the influences of the rows of ``first`` and of ``second``; the distance moves by the mean
        influence of a resample less that of all.
    """
    a, b = first.double(), second.double()
    shift = a.mean(0) - b.mean(0)
    a, b = a - a.mean(0), b - b.mean(0)
    n, m = len(a) - ddof, len(b) - ddof
    # With more rows than features the product is small between triangular factors of the rows.
    (basis_a, small_a), (basis_b, small_b) = _factored(a), _factored(b)
    u, s, v = torch.linalg.svd(small_a @ small_b.T / (n * m) ** 0.5, full_matrices=False)
    u = u if basis_a is None else basis_a @ u
    v = v.T if basis_b is None else basis_b @ v.T
    squares = a.square().sum(1), b.square().sum(1)
    value = shift.square().sum() + squares[0].sum() / n + squares[1].sum() / m - 2 * s.sum()
    ours = 2 * a @ shift + squares[0] - len(a) * (u.square() @ s)
    theirs = -2 * b @ shift + squares[1] - len(b) * (v.square() @ s)
    return max(float(value), 0.0), ours.numpy(), theirs.numpy()


def kernel_influences(
    first: Float[Tensor, "rows features"], second: Float[Tensor, "others features"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How each vector moves the kernel inception distance: twice its mean kernel to its own set less that to the other.

    The first-order term of the unbiased estimate (Binkowski et al. 2018, section 3), whose variance is that of a
    U-statistic.

    Args:
        first: rows of one side.
        second: rows of the other.

    Returns:
        influences of the rows of both sides, up to a constant.
    """
    a, b = first.double(), second.double()
    cross = polynomial_kernel(a, b)
    sides = []
    for rows, other in ((a, cross.mean(1)), (b, cross.mean(0))):
        within = polynomial_kernel(rows, rows)
        own = (within.sum(1) - within.diagonal()) / max(len(rows) - 1, 1)
        sides.append((2 * (own - other)).numpy())
    return sides[0], sides[1]


def _factored(rows: Tensor) -> tuple[Tensor | None, Tensor]:
    if rows.shape[0] <= rows.shape[1]:
        return None, rows
    basis, triangle = torch.linalg.qr(rows)
    return basis, triangle


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of ``RESAMPLES`` draws with replacement of as many values."""
    draw = np.random.default_rng(seed)
    sizes = [
        RESAMPLES // parts + (part < RESAMPLES % parts) for parts in [_parts(len(values))] for part in range(parts)
    ]
    return np.concatenate([values[draw.integers(len(values), size=(size, len(values)))].mean(1) for size in sizes])


def _parts(count: int) -> int:
    return min(RESAMPLES, -(-RESAMPLES * count // _CHUNK))


def _interval(value: float, resampled: NDArray[np.float64], floor: float | None, method: str) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low = low if floor is None else max(low, min(floor, value))
    return Interval(float(low), float(high), float(resampled.std()), method=method)
