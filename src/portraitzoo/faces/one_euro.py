"""The 1 euro filter (Casiez et al., CHI 2012): smooth where a signal rests, quick where it moves.

A low-pass filter whose cutoff frequency grows with the signal's (low-passed) speed. Frequencies are in units of one
over the unit of time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError


@dataclass(frozen=True)
class OneEuro:
    """Settings of the filter.

    Attributes:
        min_cutoff: cutoff frequency of a signal at rest: the lower, the smoother, and the later.
        beta: how much the cutoff grows with speed.
        speed_cutoff: cutoff frequency of the speed itself.

    Raises:
        ZooError: for a cutoff that is not positive, or a negative beta.
    """

    min_cutoff: float
    beta: float
    speed_cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not (self.min_cutoff > 0 and self.speed_cutoff > 0 and self.beta >= 0):
            raise ZooError(f"a 1 euro filter has positive cutoffs and a beta of at least 0, not {self}")

    def start(self) -> OneEuroFilter:
        """A filter that has seen nothing yet."""
        return OneEuroFilter(self)

    def smooth(
        self, values: Float[Tensor, "time ..."], times: Sequence[float] | None = None
    ) -> Float[Tensor, "time ..."]:
        """A whole signal, each of its numbers filtered apart; the first moment stays as it is.

        Args:
            values: the signal.
            times: when each value was taken, growing; frame numbers if None.

        Raises:
            ZooError: if times do not grow, or are not as many as values.
        """
        times = range(len(values)) if times is None else times
        if len(times) != len(values):
            raise ZooError(f"{len(values)} values need as many times, not {len(times)}")
        running = self.start()
        return torch.stack([running(t, v) for t, v in zip(times, values, strict=True)]) if len(values) else values


class OneEuroFilter:
    """A filter at work on one signal; begins anew for another one.

    Args:
        settings: of the filter.
    """

    def __init__(self, settings: OneEuro) -> None:
        self.settings = settings
        self._time = 0.0
        self._value: Tensor | None = None
        self._speed: Tensor | None = None

    def __call__(self, time: float, value: Float[Tensor, "*value"]) -> Float[Tensor, "*value"]:
        """The filtered value at a moment; the first one passes unchanged.

        Args:
            time: later than the last.
            value: of the same shape as the last.

        Raises:
            ZooError: if the time is not later, or the shape differs.
        """
        if self._value is None or self._speed is None:
            self._time, self._value, self._speed = time, value, torch.zeros_like(value)
            return value
        step = time - self._time
        if not step > 0:
            raise ZooError(f"a 1 euro filter takes growing times, not {time} after {self._time}")
        if value.shape != self._value.shape:
            raise ZooError(f"the filtered signal has shape {list(self._value.shape)}, not {list(value.shape)}")
        settings = self.settings
        change = (value - self._value) / step
        self._speed = torch.lerp(self._speed, change, _share(step * torch.full_like(value, settings.speed_cutoff)))
        cutoff = settings.min_cutoff + settings.beta * self._speed.abs()
        self._time, self._value = time, torch.lerp(self._value, value, _share(step * cutoff))
        return self._value


def _share(cycles: Tensor) -> Tensor:
    """Weight of the new value, from step times cutoff."""
    rate = 2 * math.pi * cycles
    return rate / (rate + 1)


CROP_TRANSLATION, CROP_SCALE = OneEuro(0.001, 0.05), OneEuro(0.0001, 0.005)
"""With which Portrait4D's program steadies the places (pixels) and sizes of the crops of a clip, by frame numbers."""
