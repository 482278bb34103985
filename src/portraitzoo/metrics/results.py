"""What a metric found: the rows gathered from a side, and the number with what one must know to quote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from portraitzoo.metrics.frechet import FeatureStatistics

KEPT_ROWS = 5000  # rows of a side that stay in memory beside the running sums, for the plots


@dataclass
class Result:
    """Value of one metric and what one must know to quote it.

    Attributes:
        metric: name, as given to ``evaluate``.
        title: name in tables.
        value: the number.
        std: standard deviation over heads, or None for a distance between sets.
        higher_is_better: direction.
        unit: what is counted: clips, images or heads.
        generated: how many of them on the generated side.
        real: how many on the real side; None if the metric looks at the generated side only.
        network: ``name``, ``checksum``, ``features`` and ``comparable`` of the feature network; None without one.
        notes: warnings that stand beside the value everywhere: "not comparable", "rank-deficient", ...
        extra: further numbers.
        plots: data of the report's plots (``convergence``, ``plane``, ``values``).
    """

    metric: str
    title: str
    value: float
    std: float | None
    higher_is_better: bool
    unit: str
    generated: int
    real: int | None
    network: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, Any] = field(default_factory=dict)

    @property
    def comparable(self) -> bool:
        """Whether the released feature network was used, so that published numbers may stand beside this one."""
        return self.network is None or bool(self.network["comparable"])


class Gathered:
    """Rows of one side for one measure: running sums of all, and the rows themselves as far as they are kept."""

    def __init__(self, statistics: FeatureStatistics | None) -> None:
        self.statistics = statistics
        self.rows: dict[int, Float32[np.ndarray, "rows features"]] = {}
        self._kept = 0

    def add(self, item: int, rows: Float32[np.ndarray, "rows features"]) -> None:
        """Add the rows of one item; items come in order."""
        if self.statistics is not None:
            self.statistics.append(torch.from_numpy(rows))
        if self.statistics is None or self._kept < KEPT_ROWS:
            self.rows[item] = rows
            self._kept += len(rows)

    @staticmethod
    def merge(parts: Sequence[Gathered]) -> Gathered:
        """Rows of all processes together; those kept are the same as one process would keep."""
        statistics = parts[0].statistics
        for part in parts[1:]:
            if statistics is not None and part.statistics is not None:
                statistics = statistics.merge(part.statistics)
        merged = Gathered(None)
        merged.statistics = statistics
        for item, rows in sorted((item, rows) for part in parts for item, rows in part.rows.items()):
            if statistics is None or merged._kept < KEPT_ROWS:
                merged.rows[item] = rows
                merged._kept += len(rows)
        return merged

    def matrix(self) -> Float32[np.ndarray, "rows features"]:
        """Kept rows below one another, in order of items."""
        return np.concatenate(list(self.rows.values())) if self.rows else np.zeros((0, 0), dtype=np.float32)
