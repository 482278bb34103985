"""Precision and recall, density and coverage: how far two sets of features fill the same region."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

BLOCK = 1 << 26  # distances held at once: half a gigabyte
_SAME = 1e-12  # squared distances below this share of the squared lengths are rounding of 0


class ManifoldShares(NamedTuple):
    """What :func:`manifold_shares` finds, float64: all but ``density`` lie in [0, 1]."""

    precision: Float[Tensor, ""]
    recall: Float[Tensor, ""]
    density: Float[Tensor, ""]
    coverage: Float[Tensor, ""]


def manifold_shares(
    real: Float[Tensor, "items features"],
    generated: Float[Tensor, "others features"],
    *,
    neighbours: int = 3,
    half: bool = False,
    block: int = BLOCK,
) -> ManifoldShares:
    r"""Shares of two sets in each other's manifold.

    The manifold of a set is the union of balls :math:`B` around its items that reach to their k-th nearest neighbour in
    the set. Of N real items x and M generated items y,

    .. math:: \mathrm{precision} &= \tfrac{1}{M} \textstyle\sum_j [\exists i: y_j \in B(x_i)] &
              \mathrm{recall} &= \tfrac{1}{N} \textstyle\sum_i [\exists j: x_i \in B(y_j)] \\
              \mathrm{density} &= \tfrac{1}{kM} \textstyle\sum_j \sum_i [y_j \in B(x_i)] &
              \mathrm{coverage} &= \tfrac{1}{N} \textstyle\sum_i [\exists j: y_j \in B(x_i)]

    (Kynkäänniemi et al. 2019, eq. 1 and 2, closed balls; Naeem et al. 2020, eq. 5 and 6, open balls, as in the authors'
    programs). Density and coverage use the real balls only, so that generated outliers cannot raise them. The papers
    take k = 3 and k = 5.

    Args:
        real: features; published numbers take VGG-16's fc2.
        generated: features.
        neighbours: k.
        half: round features, radii and distances to float16 as StyleGAN's code does on GPUs.
        block: distances held at once.

    Raises:
        ZooError: if a side has no more than ``neighbours`` items.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ZooError(
            f"manifolds of {neighbours} neighbours need more than {neighbours} items on each side, "
            f"not {len(real)} and {len(generated)}"
        )
    if half:
        real, generated = real.half().float(), generated.half().float()
    real_radii, generated_radii = (_radii(side, neighbours, half, block) for side in (real, generated))
    precise = within = 0
    reached = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part in generated.split(_rows(real, block)):
        distances = _distances(part, real, half)
        precise += int((distances <= real_radii).any(1).sum())
        inside = distances < real_radii
        within += int(inside.sum())
        reached |= inside.any(0)
    recalled = sum(
        int((_distances(part, generated, half) <= generated_radii).any(1).sum())
        for part in real.split(_rows(generated, block))
    )
    shares = (
        precise / len(generated),
        recalled / len(real),
        within / (neighbours * len(generated)),
        int(reached.sum()) / len(real),
    )
    return ManifoldShares(*(torch.tensor(share, dtype=torch.float64) for share in shares))


def _rows(others: Tensor, block: int) -> int:
    """Items whose distances to all others may be held at once."""
    return max(1, block // len(others))


def _radii(manifold: Tensor, k: int, half: bool, block: int) -> Float[Tensor, " items"]:
    """Distance of each item to its k-th nearest neighbour in the set."""
    parts = manifold.split(_rows(manifold, block))
    # Each item is its own nearest neighbour, hence k + 1.
    return torch.cat([_distances(part, manifold, half).kthvalue(k + 1, dim=1).values for part in parts])


def _distances(
    items: Float[Tensor, "items features"], others: Float[Tensor, "others features"], half: bool
) -> Float[Tensor, "items others"]:
    """Euclidean distances by a matrix product, in float64 because it loses the digits in which near items differ."""
    first = items.double()
    lengths = first.square().sum(1, keepdim=True)
    columns = []
    for part in others.split(8192):
        second = part.double()
        scale = lengths + second.square().sum(1)
        squared = torch.addmm(scale, first, second.T, alpha=-2)
        columns.append(squared.masked_fill_(squared < _SAME * scale, 0).sqrt_())
    found = torch.cat(columns, dim=1)
    return found.half().double() if half else found
