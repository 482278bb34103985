"""Improved precision and recall."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from portraitzoo.errors import ZooError


def precision_recall(
    real: Float[Tensor, "items features"],
    generated: Float[Tensor, "others features"],
    *,
    neighbours: int = 3,
    half: bool = False,
    chunk: int = 4096,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Share of generated items inside the real manifold, and the converse (Kynkäänniemi et al. 2019, eq. 1).

    The manifold of a set is the union of balls around its items that reach to their k-th nearest neighbour.

    Args:
        real: features; published numbers take VGG-16's fc2.
        generated: features.
        neighbours: k.
        half: round features, radii and distances to float16 as StyleGAN's code does on GPUs.
        chunk: items whose distances to all others are held at once.

    Returns:
        precision and recall, float64 in [0, 1].

    Raises:
        ZooError: if a side has no more than ``neighbours`` items.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ZooError(
            f"precision and recall with {neighbours} neighbours need more than {neighbours} items on each side, "
            f"not {len(real)} and {len(generated)}"
        )
    if half:
        real, generated = real.half().float(), generated.half().float()
    precision = _inside(generated, real, neighbours, half, chunk).double().mean()
    recall = _inside(real, generated, neighbours, half, chunk).double().mean()
    return precision, recall


def _distances(items: Tensor, others: Tensor, half: bool) -> Tensor:
    found = torch.cdist(items, others, compute_mode="donot_use_mm_for_euclid_dist")
    return found.half().float() if half else found


def _inside(
    probes: Float[Tensor, "probes features"], manifold: Float[Tensor, "items features"], k: int, half: bool, chunk: int
) -> Bool[Tensor, " probes"]:
    """Which probes lie within any ball of the manifold."""
    # Each item is its own nearest neighbour, hence k + 1.
    radii = torch.cat([_distances(p, manifold, half).kthvalue(k + 1, dim=1).values for p in manifold.split(chunk)])
    return torch.cat([(_distances(part, manifold, half) <= radii).any(1) for part in probes.split(chunk)])
