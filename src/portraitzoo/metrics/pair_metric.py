"""What the metrics of (front, side) pairs have in common."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.metrics.ready import ReadyFeatureMetric


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
