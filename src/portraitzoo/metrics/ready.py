"""Metrics that take ready features in place of pixels."""

from __future__ import annotations

from torchmetrics import Metric


class ReadyFeatureMetric(Metric):
    """A metric with a second way in besides ``update``, for features that were computed (and cached) before."""

    is_differentiable = False
    full_state_update = False

    def _note_update(self) -> None:
        """Tell torchmetrics that the state changed: it keeps the computed value until ``update`` is called."""
        self._computed = None
        self._update_count += 1
