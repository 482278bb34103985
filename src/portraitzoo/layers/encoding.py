"""Encodings of coordinates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def frequency_encoding(x: Float[Tensor, "*batch dims"], bands: int) -> Float[Tensor, "*batch 2*bands*dims"]:
    """Sines and cosines of coordinates at octaves of pi (NeRF, equation 4), without the coordinates themselves.

    Band after band: the sines of all coordinates times ``2^band * pi``, then their cosines.
    """
    octaves = math.pi * 2.0 ** torch.arange(bands, dtype=x.dtype, device=x.device)
    angles = x[..., None, :] * octaves[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=-2).flatten(-3)
