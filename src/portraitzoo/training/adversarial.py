"""Adversarial losses of the StyleGAN lineage."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def generator_loss(fake: Float[Tensor, "batch 1"]) -> Float[Tensor, ""]:
    """Non-saturating logistic loss: mean of softplus(-score) over generated samples (Goodfellow et al., 2014)."""
    return softplus(-fake).mean()


def discriminator_loss(fake: Float[Tensor, "fakes 1"], real: Float[Tensor, "reals 1"]) -> Float[Tensor, ""]:
    """Logistic loss: mean softplus(score) over generated samples plus mean softplus(-score) over real ones."""
    return softplus(fake).mean() + softplus(-real).mean()
