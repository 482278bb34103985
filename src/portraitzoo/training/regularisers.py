"""Regularisers of 3D-aware GANs, unweighted; lazy regularisation (StyleGAN2) multiplies them by their interval."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def gradient_penalty(
    scores: Float[Tensor, "batch 1"], inputs: Sequence[Float[Tensor, "batch channels height width"]]
) -> Float[Tensor, " batch"]:
    """Squared length of each score's gradient with respect to its real inputs (R1; Mescheder et al., 2018).

    Args:
        scores: discriminator logits, one per sample; they must depend on the inputs.
        inputs: tensors that require gradients; their contributions are added.

    Returns:
        Sum over channels and pixels of the squared gradients, differentiable with respect to the weights.
    """
    gradients = torch.autograd.grad(scores.sum(), list(inputs), create_graph=True)
    return torch.stack([gradient.square().sum(dim=(1, 2, 3)) for gradient in gradients]).sum(dim=0)


def density_variation(
    density: Float[Tensor, "batch points 1"], density_nearby: Float[Tensor, "batch points 1"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of densities at points and beside them (EG3D, appendix B: density regularisation)."""
    return (density - density_nearby).abs().mean()


def path_lengths(gradients: Float[Tensor, "batch num_ws w_dim"]) -> Float[Tensor, " batch"]:
    """How far an image moves as its style vectors do (StyleGAN2, section 3.2).

    Args:
        gradients: of the sum of the image times normal noise of variance 1 / pixels, with respect to the style vectors.

    Returns:
        Root mean square over the vectors of the gradients' lengths.
    """
    return gradients.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(
    lengths: Float[Tensor, " batch"], mean: Float[Tensor, ""], decay: float = 0.01
) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
    """Squared difference of path lengths from their running mean, and the mean after this batch.

    Args:
        lengths: of this batch.
        mean: running mean so far.
        decay: share of this batch in the new mean.
    """
    moved = mean.lerp(lengths.detach().mean(), decay)
    return (lengths - moved).square(), moved


def ray_distortion(
    depths: Float[Tensor, "*rays samples"], weights: Float[Tensor, "*rays samples-1"]
) -> Float[Tensor, "*rays"]:
    """How far the light along rays is spread out (Barron et al., 2022, "Mip-NeRF 360", equation 15).

    With m the middles and d the lengths of the intervals, sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 d_i / 3.

    Args:
        depths: ascending.
        weights: of the intervals between them.
    """
    middles = (depths[..., 1:] + depths[..., :-1]) / 2
    # Depths ascend, so the double sum is twice that over pairs with j < i, which running sums give.
    before = weights.cumsum(dim=-1) - weights
    moments = (weights * middles).cumsum(dim=-1) - weights * middles
    between = 2 * (weights * (middles * before - moments)).sum(dim=-1)
    return between + (weights.square() * depths.diff(dim=-1)).sum(dim=-1) / 3
