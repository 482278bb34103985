"""PV3D's set of four frames for the metrics across views and time.

One head at two times, seen from the front and from the side: front(t0), side(t1), side(t0), front(t1). The metrics
compare pairs (front, side), first of equal time and then across times.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.metrics.ready import ReadyFeatureMetric
from portraitzoo.rendering.cameras import LEVEL, Camera

NUM_VIEWS = 4
PAIRS = ((0, 2), (3, 1), (0, 1), (3, 2))
"""(front, side) frame numbers; the first two pairs share a time."""


def side_camera(yaw: float = 30.0, pitch: float = 0.0) -> Camera:
    """Camera of the side frames; angles in degrees.

    Only this view stands a little above (0.05 rad): the front frames are taken with :meth:`Camera.canonical`.
    """
    return Camera.look_at(math.radians(yaw), LEVEL + math.radians(pitch))


def check_views(what: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    """Raise ZooError unless ``shape`` is ``expected`` (``None``: any size), which has the views on its second axis."""
    if len(shape) != len(expected) or any(e is not None and e != s for s, e in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise ZooError(f"{what} must be [{wanted}], not {list(shape)}: front(t0), side(t1), side(t0), front(t1) a head")


class PairMetric(ReadyFeatureMetric):
    """Mean of one number for each (front, side) pair of each head.

    The state is two sums and two counts, added across processes. A pair whose number is NaN (nothing is seen in both
    frames) is skipped and counted in ``skipped``.
    """

    higher_is_better = False

    total: Tensor
    pairs: Tensor
    skipped: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pairs", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update_features(self, values: Float[Tensor, "batch pairs"]) -> None:
        """Add ready numbers, as the metric's ``pair_values`` makes them."""
        self._note_update()
        values = values.detach().to(self.total)
        usable = ~values.isnan()
        self.total += values[usable].sum()
        self.pairs += usable.sum()
        self.skipped += (~usable).sum()

    def compute(self) -> Float[Tensor, ""]:
        """Mean over pairs, float64.

        Raises:
            ZooError: if no pair could be used.
        """
        if not self.pairs:
            raise ZooError(f"{type(self).__name__} found no pair of frames that show the same surface")
        return self.total / self.pairs
