"""What the landmarks of a fitted head are held to: Portrait4D's 70 points and the losses of its two stages.

The 70 are iBUG's 68 and the pupils, pixels of a 512 x 512 crop with y upwards, [batch, 70, 2].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

IMAGE_SIZE, POINTS = 512, 70
JAW_LINE = 17
OF_98 = (*range(33, 38), *range(42, 47), *range(51, 60), 60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75, *range(76, 98))
"""Which of WFLW's 98 points are brows, nose, eyes, lips and pupils in the order of the 70."""
CORNERS, LIPS = (36, 39, 42, 45), tuple(range(48, 68))
UPPER_LIDS, LOWER_LIDS = (36, 37, 38, 39, 42, 43, 44, 45), (36, 41, 40, 39, 42, 47, 46, 45)
"""Pairs of points above each other; four of the eye on the picture's left, then four of the other."""
CLOSED = 8.0
"""Gap between the lids, pixels, up to which an eye is taken for closed."""


def fit_target(
    points98: Float[Tensor, "batch 98 2"], points68: Float[Tensor, "batch 68 2"]
) -> Float[Tensor, "batch 70 2"]:
    """The points to fit, y up: the jaw line of one detector and the rest of the other.

    Args:
        points98: WFLW's, pixels of the crop, y down, as :meth:`portraitzoo.faces.alignment.Crop.move` gives them.
        points68: iBUG's, of which the first 17 are taken.

    Raises:
        ZooError: for other shapes, and for numbers that are not finite.
    """
    for points, count in ((points98, 98), (points68, 68)):
        if points.ndim != 3 or points.shape[1:] != (count, 2) or len(points) != len(points98):
            raise ZooError(
                f"landmarks of {len(points98)} faces are [{len(points98)}, {count}, 2], not {list(points.shape)}"
            )
        if not torch.isfinite(points).all():
            raise ZooError("landmarks hold NaN or infinite numbers")
    joined = torch.cat([points68[:, :JAW_LINE], points98[:, list(OF_98)].to(points68)], dim=1)
    # The crops' landmarks count from below the last row, so nothing is subtracted for it here.
    return torch.stack([joined[..., 0], IMAGE_SIZE - joined[..., 1]], dim=-1).float()


class LandmarkLoss:
    """The losses of both stages against one target.

    Args:
        target: :func:`fit_target`.

    Attributes:
        target: the same.
        gaps: distances, in pixels, that the lids should have: the target's, and none where an eye is (nearly) closed.
    """

    def __init__(self, target: Float[Tensor, "batch 70 2"]) -> None:
        self.target = target
        self._placing = target.new_tensor(
            _weights([(range(POINTS), 1), (CORNERS, 2), (LIPS, 2), (UPPER_LIDS, 1), (LOWER_LIDS, 1)])
        )
        self._fitting = target.new_tensor(_weights([(range(POINTS), 1), (UPPER_LIDS, 5), (LOWER_LIDS, 5)]))
        self._lids = (torch.eye(POINTS)[list(UPPER_LIDS)] - torch.eye(POINTS)[list(LOWER_LIDS)]).to(target)
        gaps = self.lid_gaps(target)
        self.gaps = torch.where(gaps <= CLOSED, 0, gaps)

    def lid_gaps(self, points: Float[Tensor, "batch 70 2"]) -> Float[Tensor, "batch 8"]:
        """Distances between the points of :data:`UPPER_LIDS` and of :data:`LOWER_LIDS`, pixels.

        Those of the corners, 0 in truth, are the root of the 1e-7 that keeps the gradient finite.
        """
        return ((self._lids @ points).square().sum(-1) + 1e-7).sqrt()

    def placing(self, points: Float[Tensor, "batch 70 2"]) -> Float[Tensor, ""]:
        """Stage 1: mean squares of all coordinates, twice those of eye corners and lips, and those of the lids."""
        return self._squares(points) @ self._placing

    def fitting(self, points: Float[Tensor, "batch 70 2"]) -> Float[Tensor, ""]:
        """Stage 2, as far as points go: mean squares of all coordinates and five times those of the lids; twice those
        of the lids' gaps against the wanted ones; those of one eye's gaps against the other's.
        """
        found = self.lid_gaps(points)
        one_eye, other_eye = found.chunk(2, dim=1)
        alike = (one_eye - other_eye).square().mean()
        return self._squares(points) @ self._fitting + 2 * (found - self.gaps).square().mean() + alike

    def _squares(self, points: Tensor) -> Tensor:
        return (points - self.target).square().mean((0, 2))


def _weights(terms: list[tuple[Sequence[int], float]]) -> list[float]:
    """Factor of each point's mean square in a sum of weighted means over groups of points."""
    weights = [0.0] * POINTS
    for points, factor in terms:
        for point in points:
            weights[point] += factor / len(points)
    return weights
