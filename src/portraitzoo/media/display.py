"""Pictures for looking at, not for measuring: colour correction and normals of a depth map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

MULTIFACE_GAIN = (1.4, 1.1, 1.6)
"""Blue, green, red: brings Multiface's raw camera colours near to what people expect (NPVA)."""


def display_corrected(
    images: Float[Tensor, "*batch 3"], gain: tuple[float, float, float] = MULTIFACE_GAIN
) -> Float[Tensor, "*batch 3"]:
    """Raw camera colours with black level, gain and gamma 2 for the screen (NPVA).

    Args:
        images: linear colours, 1 is white; channels in the order of ``gain``.
        gain: factor of each channel, relative to 1.1.

    Returns:
        values in [0, 2]; what exceeds 1 saturates on the screen.
    """
    black, scale = 3 / 255, torch.tensor(gain, dtype=images.dtype, device=images.device) / 1.1
    lifted = (images * scale - black).clamp(0, 2) * (0.95 / (1 - black))
    return (lifted.sqrt() - 15 / 255).clamp(0, 2)


def depth_normals(depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width 3"]:
    """Picture of the normals (-dz/dx, -dz/dy, 1) of a depth map, pixels as unit of length, mapped to [0, 1]."""
    down, right = torch.gradient(depth)
    normals = torch.stack([-right, -down, torch.ones_like(depth)], dim=-1)
    return (torch.nn.functional.normalize(normals, dim=-1) + 1) / 2
