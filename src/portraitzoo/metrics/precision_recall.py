"""Precision and recall, density and coverage: how far two sets of features fill the same region."""

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
    real, generated = _prepared(real, generated, neighbours, half)
    precision = _inside(generated, real, neighbours, half, chunk).double().mean()
    recall = _inside(real, generated, neighbours, half, chunk).double().mean()
    return precision, recall


def density_coverage(
    real: Float[Tensor, "items features"],
    generated: Float[Tensor, "others features"],
    *,
    neighbours: int = 3,
    half: bool = False,
    chunk: int = 4096,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""How densely generated items fill the real manifold, and how much of it (Naeem et al. 2020, eq. 5 and 6).

    .. math:: \mathrm{density} = \frac{1}{kM} \sum_j \sum_i [y_j \in B(x_i)], \quad
              \mathrm{coverage} = \frac{1}{N} \sum_i [\exists j: y_j \in B(x_i)]

    where :math:`B(x_i)` is the ball around a real item that reaches to its k-th nearest real neighbour. Unlike recall
    both use the real balls only, so that single generated outliers cannot raise them. The paper takes k = 5.

    Args:
        real: features of N items.
        generated: features of M items.
        neighbours: k.
        half: round features, radii and distances to float16.
        chunk: items whose distances to all others are held at once.

    Returns:
        density (may exceed 1) and coverage in [0, 1], float64.

    Raises:
        ZooError: if a side has no more than ``neighbours`` items.
    """
    real, generated = _prepared(real, generated, neighbours, half)
    radii = _radii(real, neighbours, half, chunk)
    within, reached = 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in generated.split(chunk):
        inside = _distances(part, real, half) < radii
        within += int(inside.sum())
        reached |= inside.any(0)
    density = torch.tensor(within / (neighbours * len(generated)), dtype=torch.float64)
    return density, reached.double().mean()


def _prepared(real: Tensor, generated: Tensor, neighbours: int, half: bool) -> tuple[Tensor, Tensor]:
    if min(len(real), len(generated)) <= neighbours:
        raise ZooError(
            f"manifolds of {neighbours} neighbours need more than {neighbours} items on each side, "
            f"not {len(real)} and {len(generated)}"
        )
    return (real.half().float(), generated.half().float()) if half else (real, generated)


def _radii(manifold: Tensor, k: int, half: bool, chunk: int) -> Float[Tensor, " items"]:
    """Distance of each item to its k-th nearest neighbour in the set."""
    # Each item is its own nearest neighbour, hence k + 1.
    return torch.cat([_distances(p, manifold, half).kthvalue(k + 1, dim=1).values for p in manifold.split(chunk)])


def _distances(items: Tensor, others: Tensor, half: bool) -> Tensor:
    found = torch.cdist(items, others, compute_mode="donot_use_mm_for_euclid_dist")
    return found.half().float() if half else found


def _inside(
    probes: Float[Tensor, "probes features"], manifold: Float[Tensor, "items features"], k: int, half: bool, chunk: int
) -> Bool[Tensor, " probes"]:
    """Which probes lie within any ball of the manifold."""
    radii = _radii(manifold, k, half, chunk)
    return torch.cat([(_distances(part, manifold, half) <= radii).any(1) for part in probes.split(chunk)])
