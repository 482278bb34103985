"""Inception Score, of images and of videos."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

VIDEO_SHUFFLE_SEED = 42


def inception_score(
    probabilities: Float[Tensor, "items classes"], *, num_splits: int = 10
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Inception Score (Salimans et al. 2016, section 4).

    .. math:: \exp \big( \mathrm{mean}_i\, \mathrm{KL}(p_i \,\|\, \bar{p}) \big)

    for each of ``num_splits`` contiguous splits, natural logarithm; rows are taken in their order, as the StyleGAN
    family does. torchmetrics and torch-fidelity shuffle them first (the one by the global generator, the other by a
    seed), and torchmetrics divides by one split less in its deviation.

    Args:
        probabilities: softmax rows; of ``logits_unbiased`` for images.
        num_splits: how many splits.

    Returns:
        mean and population standard deviation over the splits, float64. A probability of exactly 0 adds nothing.

    Raises:
        ZooError: for fewer rows than splits.
    """
    count = len(probabilities)
    if count < num_splits:
        raise ZooError(f"an Inception Score of {num_splits} splits needs at least that many items, not {count}")
    scores = []
    for i in range(num_splits):
        part = probabilities[i * count // num_splits : (i + 1) * count // num_splits].double()
        mean = part.mean(0, keepdim=True)
        divergence = torch.special.xlogy(part, part) - torch.special.xlogy(part, mean)
        scores.append(divergence.sum(1).mean().exp())
    found = torch.stack(scores)
    return found.mean(), found.std(correction=0)


def video_inception_score(
    probabilities: Float[Tensor, "items classes"], *, num_splits: int = 10
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Inception Score of clips (Saito et al. 2020) as 3DVidGen has it: rows of C3D, shuffled by a fixed seed first.

    Meaningful for UCF-101, whose classes C3D was tuned on; not for faces.
    """
    # Rows are shuffled as NumPy shuffles an array in place: its draws, and so the splits, depend on that.
    order = np.arange(len(probabilities))
    np.random.RandomState(VIDEO_SHUFFLE_SEED).shuffle(order)
    return inception_score(probabilities[torch.from_numpy(order)], num_splits=num_splits)
