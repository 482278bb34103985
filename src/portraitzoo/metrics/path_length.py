"""Perceptual path length: its interpolation, its picture size and its robust mean."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

PATH_SIZE = 256  # pixels a side at which the two pictures are compared

Space = Literal["w", "z"]
"""Where a path lies: styles, or latents."""


def shrunk(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 new_height new_width"]:
    """Images averaged over blocks down to 256 pixels, as StyleGAN does; smaller ones stay as they are.

    Raises:
        ZooError: if the size is no multiple of 256.
    """
    height, width = images.shape[-2:]
    if min(height, width) <= PATH_SIZE:
        return images
    if height != width or height % PATH_SIZE:
        raise ZooError(f"a path length is measured at {PATH_SIZE} pixels, of which {width}x{height} is no multiple")
    return F.avg_pool2d(images, height // PATH_SIZE)


def slerp(
    first: Float[Tensor, "*batch features"], second: Float[Tensor, "*batch features"], t: Float[Tensor, "*batch 1"]
) -> Float[Tensor, "*batch features"]:
    """Point at share ``t`` of the great circle from one direction to another, of unit length (Shoemake 1985)."""
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    cosine = (first * second).sum(-1, keepdim=True)
    angle = t * torch.acos(cosine.clamp(-1, 1))
    across = F.normalize(second - cosine * first, dim=-1)
    return F.normalize(first * angle.cos() + across * angle.sin(), dim=-1)


def trimmed_mean(distances: Float[Tensor, " items"], percent: float = 1.0) -> Float[Tensor, ""]:
    """Perceptual path length of per-sample distances (Karras et al. 2019, section 4.1).

    Mean of what lies between the lowest and the highest ``percent``, limits included; the limits are values that occur.

    Args:
        distances: LPIPS between the images at t and t + epsilon, divided by epsilon squared.
        percent: trimmed at either end.

    Returns:
        float64 scalar.

    Raises:
        ZooError: for no distances.
    """
    if len(distances) == 0:
        raise ZooError("a perceptual path length needs at least one distance")
    values = distances.detach().cpu().double().numpy()
    low = np.percentile(values, percent, method="lower")
    high = np.percentile(values, 100 - percent, method="higher")
    return torch.tensor(values[(values >= low) & (values <= high)].mean())
