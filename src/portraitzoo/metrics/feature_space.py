"""Two sets of feature vectors looked at: on a plane, and as the number of samples grows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

PLANE_POINTS = 400  # of each side in the scatter plot
CURVE_LIMIT = 1024  # samples of each side up to which the curve is computed


def frechet_of_rows(
    first: Float[np.ndarray, "rows features"], second: Float[np.ndarray, "others features"], ddof: int = 0
) -> float:
    r"""Fréchet distance between two sets of vectors, without their covariance matrices.

    With centred rows A (n of them) and B (m), :math:`\mathrm{tr}((\Sigma_a \Sigma_b)^{1/2})` is the sum of the singular
    values of :math:`A B^\top / \sqrt{(n - ddof)(m - ddof)}`: an n x m matrix, much smaller than features x features
    for few samples.
    """
    a, b = (torch.from_numpy(np.asarray(rows, dtype=np.float64)) for rows in (first, second))
    shift = (a.mean(0) - b.mean(0)).square().sum()
    a, b = a - a.mean(0), b - b.mean(0)
    n, m = len(a) - ddof, len(b) - ddof
    cross = torch.linalg.svdvals(a @ b.T).sum() / (n * m) ** 0.5
    return float((shift + a.square().sum() / n + b.square().sum() / m - 2 * cross).clamp(min=0))


def convergence(
    generated: NDArray[np.float32], real: NDArray[np.float32], ddof: int = 0, seed: int = 0
) -> list[tuple[int, float]]:
    """Fréchet distance for growing numbers of samples on both sides, drawn without replacement; empty for few samples.

    Args:
        generated: rows of one side.
        real: rows of the other; none if only its statistics are known.
        ddof: divisor of covariances is n - ddof.
        seed: of the draw.
    """
    most = min(len(generated), len(real), CURVE_LIMIT)
    if most < 8:
        return []
    counts = sorted({round(most * 2**-step) for step in np.arange(0, 3.5, 0.5)} - {0, 1, 2, 3})
    ours, theirs = (
        np.random.default_rng([seed, side]).permutation(len(rows)) for side, rows in enumerate((generated, real))
    )
    return [(n, frechet_of_rows(generated[ours[:n]], real[theirs[:n]], ddof)) for n in counts]


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
