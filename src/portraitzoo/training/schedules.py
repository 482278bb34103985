"""Schedules of 3D-aware GAN training as functions of the number of training samples seen so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HALF_LIFE_BATCH = 32
"""Batch size for which StyleGAN's half lives and fades are quoted."""


@dataclass(frozen=True)
class Schedules:
    """The three fades of EG3D and PV3D training.

    Attributes:
        blur_sigma: standard deviation, in pixels, of the discriminators' blur at the start (EG3D, appendix B).
        blur_fade: samples after which the blur is gone, for a batch of 32; a smaller batch fades proportionally sooner.
        blur_batch: which batch size scales the fade. PV3D takes the batch of one device, so that its fade depends on
            the number of devices; ``global`` removes that dependence.
        swap_start: probability at the start that the mapping is told another clip's cameras (generator pose
            conditioning, EG3D section 4.4).
        swap_end: that probability after the fade.
        swap_fade: samples over which it falls, linearly.
        resolution_start: side of the volume-rendered image at the start; None is the network's own.
        resolution_end: that side after the growth; None is the network's own.
        resolution_fade: samples over which it grows, linearly.
    """

    blur_sigma: float = 10.0
    blur_fade: float = 200_000
    blur_batch: Literal["device", "global"] = "device"
    swap_start: float = 1.0
    swap_end: float = 0.5
    swap_fade: float = 1_000_000
    resolution_start: int | None = None
    resolution_end: int | None = None
    resolution_fade: float = 1_000_000

    def blur(self, num_samples: int, device_batch: int, devices: int = 1) -> float:
        """Standard deviation of the discriminators' blur, in pixels."""
        batch = device_batch * (devices if self.blur_batch == "global" else 1)
        fade = self.blur_fade * batch / HALF_LIFE_BATCH
        return max(1 - num_samples / fade, 0.0) * self.blur_sigma if fade > 0 else 0.0

    def swap_probability(self, num_samples: int) -> float:
        """Probability with which a clip's mapping is conditioned on its neighbour's cameras."""
        return _linear(self.swap_start, self.swap_end, num_samples, self.swap_fade)

    def render_resolution(self, num_samples: int, own: int = 64) -> int:
        """Side of the volume-rendered image, rounded half to even; ``own`` is the network's."""
        start, end = (own if side is None else side for side in (self.resolution_start, self.resolution_end))
        return round(_linear(start, end, num_samples, self.resolution_fade))


def ema_beta(num_samples: int, batch: int, half_life: float = 10_000, rampup: float | None = 0.05) -> float:
    """Decay of the averaged generator: ``average = beta * average + (1 - beta) * current`` after each update.

    Args:
        num_samples: samples seen before this update.
        batch: samples of this update, over all devices.
        half_life: samples, per 32 of the batch, after which an old value weighs one half.
        rampup: the half life is at most this share of ``num_samples``, so that the first updates are forgotten
            quickly; None switches this off.

    Returns:
        0 at the first update with a ramp; then approaching ``0.5 ** (32 / half_life)``.
    """
    life = batch * half_life / HALF_LIFE_BATCH
    if rampup is not None:
        life = min(life, num_samples * rampup)
    return 0.5 ** (batch / max(life, 1e-8))


def _linear(start: float, end: float, num_samples: int, fade: float) -> float:
    share = min(num_samples / fade, 1.0) if fade > 0 else 1.0
    return start + (end - start) * share
