"""Measures whose value is the mean of numbers that each item has for itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from portraitzoo.errors import ZooError
from portraitzoo.metrics.bootstrap import of_mean
from portraitzoo.metrics.extremes import by_value
from portraitzoo.metrics.measures.base import Measure
from portraitzoo.metrics.results import Gathered, Result


class ItemMeasure(Measure):
    """Mean over the numbers of all items, with the standard deviation over items and every item's own mean.

    Attributes:
        unit: what an item is: heads, pairs, clips.
        part: what one of its numbers belongs to: pairs of views, frames.
        empty: said where no number could be had at all.
    """

    unit: ClassVar[str]
    part: ClassVar[str] = "frames"
    empty: ClassVar[str] = "there is nothing to measure"

    @abstractmethod
    def values(self, generated: Gathered) -> list[Float[np.ndarray, " parts"]]:
        """Numbers of each item (of all its pieces), in order; NaN where one could not be measured."""

    def names(self, generated: Gathered) -> list[str]:
        """What these items are called."""
        return list(generated.names.values())

    def mean(self, values: Float[np.ndarray, " numbers"]) -> float:
        """The value of all numbers that could be measured."""
        return float(values.mean())

    def extra(self, values: list[Float[np.ndarray, " parts"]]) -> dict[str, float]:
        """Further numbers."""
        return {}

    def result(self, generated: Gathered, real: Gathered | None) -> Result:
        """Mean over all numbers, standard deviation over items."""
        values = self.values(generated)
        numbers = np.concatenate(values)
        usable = np.isfinite(numbers)
        if not usable.any():
            raise ZooError(f"{self.title}: {self.empty}")
        skipped = int((~usable).sum())
        means = [self.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values]
        each = np.array([mean for mean in means if np.isfinite(mean)])
        value = self.mean(numbers[usable])
        names = self.names(generated)
        result = Result(
            metric=self.name,
            title=self.title,
            value=value,
            std=float(each.std()),
            higher_is_better=self.higher_is_better,
            unit=self.unit,
            generated=len(values),
            real=None,
            notes=[f"{skipped} of {numbers.size} {self.part} skipped: empty"] if skipped else [],
            extra={"median": float(np.median(each)), **self.extra(values)},
            plots={"values": each.tolist()},
            items=[(name, float(mean)) for name, mean in zip(names, means, strict=True) if np.isfinite(mean)],
            interval=of_mean(value, each, [name for name, mean in zip(names, means, strict=True) if np.isfinite(mean)]),
        )
        result.extremes = by_value(result.items, generated, self.higher_is_better)
        return self._described(result)
