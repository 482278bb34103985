"""Smooth random fields for procedural surfaces, and seeds that do not disturb each other."""

from __future__ import annotations

import functools
import zlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_PERIOD = 32


def stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """The random numbers of clip ``index`` for one ``purpose``: further purposes leave the others' numbers alone."""
    return np.random.Generator(np.random.PCG64([seed, index, zlib.crc32(purpose.encode())]))


def noise(points: Float[Tensor, "n dims"], channels: int = 1, offset: int = 0) -> Float[Tensor, "n channels"]:
    """Value noise in [-1, 1] with one random value per unit cell corner, repeating every 32 units.

    Args:
        points: coordinates in cells, 2 or 3 of them; scale them for finer grain.
        channels: independent fields.
        offset: first field to take (0 to 15), so that different materials look different.
    """
    table = _table()[:, offset : offset + channels]
    if points.shape[-1] == 2:
        table = table[:, :, 0]
    # The table has one repeated layer on the far side, so that interpolation never leaves it.
    grid = torch.remainder(points, _PERIOD).mul_(2 / _PERIOD).sub_(1)
    ones = (1,) * (points.shape[-1] - 1)
    found = torch.nn.functional.grid_sample(table, grid.view(1, -1, *ones, points.shape[-1]), align_corners=True)
    return found.view(channels, -1).T


@functools.lru_cache(maxsize=1)
def _table() -> Float[Tensor, "1 16 33 33 33"]:
    values = np.random.Generator(np.random.PCG64(20)).uniform(-1, 1, (16, _PERIOD, _PERIOD, _PERIOD))
    return torch.from_numpy(np.pad(values, [(0, 0)] + [(0, 1)] * 3, mode="wrap").astype(np.float32))[None]


def smoothstep(low: float, high: float, value: Tensor) -> Tensor:
    """0 below ``low``, 1 above ``high`` (or the other way round if low > high), smooth between."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
