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
