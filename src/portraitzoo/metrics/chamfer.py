"""Chamfer distance between the surfaces that a model renders from different views."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from portraitzoo.metrics.multiview import NUM_VIEWS, PAIRS, check_views
from portraitzoo.metrics.pair_metric import PairMetric


def nearest_squared(
    first: Float[Tensor, "points 3"], second: Float[Tensor, "others 3"], chunk: int = 1024
) -> tuple[Float[Tensor, " points"], Float[Tensor, " others"]]:
    """Squared distance from each point to the nearest of the other cloud, both ways.

    Points are taken ``chunk`` at a time, so that memory stays ``chunk * others`` numbers.
    """
    forward, backward = [], first.new_full(second.shape[:1], torch.inf)
    for part in first.split(chunk):
        # Not by a matrix product: it loses the digits that near points differ in.
        squared = torch.cdist(part, second, compute_mode="donot_use_mm_for_euclid_dist").square()
        forward.append(squared.amin(1))
        backward = torch.minimum(backward, squared.amin(0))
    return torch.cat(forward), backward


def chamfer_distance(first: Float[Tensor, "points 3"], second: Float[Tensor, "others 3"]) -> Float[Tensor, ""]:
    """Mean squared distance to the nearest point of the other cloud, both ways added."""
    forward, backward = nearest_squared(first, second)
    return forward.mean() + backward.mean()


def median_chamfer_distance(
    first: Float[Tensor, "points 3"],
    second: Float[Tensor, "others 3"],
    first_mask: Bool[Tensor, " points"],
    second_mask: Bool[Tensor, " others"],
) -> Float[Tensor, ""]:
    """PV3D's value of one pair: MEDIAN squared distance of the masked points to ALL others, both ways added.

    NaN if a mask is empty.
    """
    forward, backward = nearest_squared(first, second)
    return forward[first_mask].median() + backward[second_mask].median()


class ChamferDistance(PairMetric):
    r"""Chamfer distance across views and time (PV3D, section 4.1, "CD").

    .. math:: \mathrm{CD}(X, Y) = \mathrm{med}_{x \in X_m} \min_{y \in Y} |x - y|^2
              + \mathrm{med}_{y \in Y_m} \min_{x \in X} |x - y|^2

    over the four (front, side) pairs of each head (see :mod:`~portraitzoo.metrics.multiview`). :math:`X_m` are the
    points of opacity above 0.5; nearest points are searched among all. Units are squared world units of the scene. A
    pair with an empty mask is skipped and counted in ``skipped``.

    As input to ``update`` the metric accepts

    - ``position`` float tensor ``[batch, 4, height, width, 3]``: expected surface point of each pixel, world units
    - ``opacity`` float tensor ``[batch, 4, height, width]`` in [0, 1]

    As output of ``compute`` it returns a float64 scalar; lower is better.

    Args:
        reduction: ``"mean"`` over pairs, or ``"sum"``: what PV3D's command prints (over 4000 pairs) and its paper
            calls an average.
        kwargs: further arguments of :class:`torchmetrics.Metric`.

    Raises:
        ZooError: for other shapes, or from ``compute`` if every pair was skipped.

    Example:
        >>> metric = ChamferDistance()
        >>> position = torch.zeros(1, 4, 2, 2, 3)
        >>> position[:, 1:3] = 0.5  # the side views see a surface moved by (0.5, 0.5, 0.5)
        >>> metric.update(position, torch.ones(1, 4, 2, 2))
        >>> metric.compute()
        tensor(1.5000, dtype=torch.float64)
    """

    def __init__(self, reduction: Literal["mean", "sum"] = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = reduction

    def update(
        self, position: Float[Tensor, "batch 4 height width 3"], opacity: Float[Tensor, "batch 4 height width"]
    ) -> None:
        """Add heads of four frames."""
        check_views("position", tuple(position.shape), (None, NUM_VIEWS, None, None, 3))
        check_views("opacity", tuple(opacity.shape), tuple(position.shape[:-1]))
        self.update_features(self.pair_values(position, opacity))

    @staticmethod
    def pair_values(
        position: Float[Tensor, "batch 4 height width 3"], opacity: Float[Tensor, "batch 4 height width"]
    ) -> Float[Tensor, "batch 4"]:
        """Distance of each head and (front, side) pair; NaN where a mask is empty."""
        points, masks = position.flatten(2, 3), opacity.flatten(2) > 0.5
        return torch.stack(
            [
                torch.stack([median_chamfer_distance(cloud[i], cloud[j], mask[i], mask[j]) for i, j in PAIRS])
                for cloud, mask in zip(points, masks, strict=True)
            ]
        )

    def compute(self) -> Float[Tensor, ""]:
        """Mean or sum over pairs, float64."""
        mean = super().compute()
        return self.total if self.reduction == "sum" else mean
