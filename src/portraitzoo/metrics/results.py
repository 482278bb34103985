"""What a metric found: the rows gathered from a side, and the number with what one must know to quote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32

from portraitzoo.metrics.bootstrap import Interval
from portraitzoo.metrics.frechet import FeatureStatistics

KEPT_ROWS = 5000  # rows of a side that stay in memory beside the running sums, for the plots


@dataclass(frozen=True)
class Extreme:
    """An item at one end of the ranking.

    Attributes:
        end: ``worst`` or ``best``.
        item: its number on the generated side.
        name: what it is called.
        value: of the metric for this item; for a distance between sets, how far it lies from the nearest real item.
        real_item: number of that real item, where there is one.
        real_name: what that is called.
        picture: JPEG of a few of its frames.
        real_picture: the same of the real item.
    """

    end: Literal["worst", "best"]
    item: int
    name: str
    value: float
    real_item: int | None = None
    real_name: str | None = None
    picture: bytes | None = None
    real_picture: bytes | None = None


@dataclass
class Result:
    """Value of one metric and what one must know to quote it.

    Attributes:
        metric: name, as given to ``evaluate``.
        title: name in tables.
        value: the number.
        std: standard deviation over items (heads, pairs, clips), KID's subsets or the Inception Score's splits; None
            for a number of whole sets.
        interval: where the value lies as far as the choice of items goes; None if that is not known.
        higher_is_better: direction.
        unit: what is counted: clips, images, heads, pairs or paths.
        generated: how many of them on the generated side.
        real: how many on the real side; None if the metric looks at the generated side only.
        network: ``name``, ``checksum``, ``features`` and ``comparable`` of the feature network; None without one.
        doubt: why the value itself must not be quoted, such as a covariance of too few samples; None if it may. A value
            in doubt is marked wherever it is printed.
        notes: warnings that stand beside the value everywhere: "not comparable", "rank-deficient", ...
        extra: further numbers.
        plots: data of the report's plots (``convergence``, ``plane``, ``values``).
        items: name and value of each item by itself, in order, where the metric has such a value: what the worst and
            the best are found by.
        extremes: the worst items and the best ones, the worst first.
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
    doubt: str | None = None
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, Any] = field(default_factory=dict)
    items: list[tuple[str, float]] = field(default_factory=list)
    interval: Interval | None = None
    extremes: list[Extreme] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """Whether the released feature network was used, so that published numbers may stand beside this one."""
        return self.network is None or bool(self.network["comparable"])


class Gathered:
    """Rows of one side for one measure: running sums of all, and the rows themselves as far as they are kept.

    Args:
        statistics: the sums to run; all rows are kept where there are none, else the first ``kept_rows``.
        kept_rows: how many, up to the end of an item.

    Attributes:
        rows: those of each item that are kept, by its number.
        names: what each of these items is called.
    """

    def __init__(self, statistics: FeatureStatistics | None, kept_rows: float = KEPT_ROWS) -> None:
        self.statistics = statistics
        self.kept_rows = kept_rows
        self.rows: dict[int, Float32[np.ndarray, "rows features"]] = {}
        self.names: dict[int, str] = {}
        self._kept = 0

    def add(self, item: int, rows: Float32[np.ndarray, "rows features"], name: str = "") -> None:
        """Add the rows of one item; items come in order."""
        if self.statistics is not None:
            self.statistics.append(torch.from_numpy(rows))
        if self.statistics is None or self._kept < self.kept_rows:
            self.rows[item] = rows
            self.names[item] = name
            self._kept += len(rows)

    def matrix(self) -> Float32[np.ndarray, "rows features"]:
        """Kept rows below one another, in order of items."""
        return np.concatenate(list(self.rows.values())) if self.rows else np.zeros((0, 0), dtype=np.float32)
