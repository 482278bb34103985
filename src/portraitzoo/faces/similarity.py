"""Aligning pictures by landmarks: least-squares similarities, and pictures moved by them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def fit_similarity(
    source: Float[Tensor, "*batch points dims"], target: Float[Tensor, "*batch points dims"]
) -> Float[Tensor, "*batch dims dims+1"]:
    """Rotation, uniform scale and shift that bring points closest to others, without mirroring (Umeyama, 1991).

    Args:
        source: points, at least two of which differ.
        target: where they should go.

    Returns:
        Matrices for column vectors (x, y, 1); not a number where all source points are the same.
    """
    source, target = source.double(), target.double()
    center, goal = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    spread = source - center
    u, stretch, vt = torch.linalg.svd((target - goal).mT @ spread / source.shape[-2])
    mirrored = torch.linalg.det(u) * torch.linalg.det(vt) < 0
    signs = torch.ones_like(stretch)
    signs[..., -1] = torch.where(mirrored, -1.0, 1.0)
    rotation = (u * signs[..., None, :]) @ vt
    scale = (stretch * signs).sum(-1) / spread.square().sum(-1).mean(-1)
    linear = rotation * scale[..., None, None]
    return torch.cat([linear, goal.mT - linear @ center.mT], dim=-1).float()


def warp(
    images: Float[Tensor, "batch channels height width"],
    matrices: Float[Tensor, "batch 2 3"],
    size: int,
    outside: Literal["zeros", "reflection"] = "zeros",
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Pictures moved by affine maps of pixel coordinates (first pixel 0, 0), bilinear.

    Args:
        images: pictures.
        matrices: from their pixels to those of the result.
        size: side of the result.
        outside: what is seen beyond the pictures: nothing, or their mirror image.
    """
    height, width = images.shape[-2:]
    linear = torch.linalg.inv(matrices[:, :, :2].double())
    inverse = torch.cat([linear, -linear @ matrices[:, :, 2:].double()], dim=-1)
    axis = torch.arange(size, dtype=torch.float64, device=images.device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    wanted = torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1)
    last = torch.tensor([width - 1, height - 1], dtype=torch.float64, device=images.device)
    grid = (wanted @ inverse.mT / last * 2 - 1).to(images.dtype).unflatten(1, (size, size))
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=True)
