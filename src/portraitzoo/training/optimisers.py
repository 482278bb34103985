"""Optimisers of the StyleGAN lineage."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def lazy_adam(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    lr: float,
    interval: int,
    beta2: float = 0.99,
    *,
    beta1: float = 0.0,
    eps: float = 1e-8,
) -> torch.optim.Adam:
    """Adam, by default without momentum, corrected for lazy regularisation (StyleGAN2, appendix B).

    Every ``interval`` updates the regulariser takes a step of its own; learning rate and decay are scaled so that the
    ``interval + 1`` steps together move as far as ``interval`` ordinary ones.

    Args:
        parameters: to optimise, or groups of them.
        lr: learning rate before the correction.
        interval: updates per regularisation.
        beta1: decay of the momentum before the correction.
        beta2: decay of the squared gradient before the correction.
        eps: added to the root of the squared gradient.
    """
    share = interval / (interval + 1)
    return torch.optim.Adam(parameters, lr=lr * share, betas=(beta1**share, beta2**share), eps=eps, fused=True)
