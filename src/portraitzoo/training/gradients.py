"""Gradients made safe before an optimiser sees them, and the switches that decide who gets any."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


def sanitise_gradients(parameters: Iterable[nn.Parameter], limit: float = 1e5) -> None:
    """Replace NaN by 0 and infinities by +-``limit`` in place (StyleGAN2-ADA's rule; there is no norm clipping).

    In distributed training call it after the gradients have been averaged, so that all processes change alike.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            torch.nan_to_num(parameter.grad, nan=0.0, posinf=limit, neginf=-limit, out=parameter.grad)


@contextmanager
def training_only(trained: Iterable[nn.Module], resting: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block the parameters of ``trained`` require gradients and those of ``resting`` do not."""
    trained, resting = list(trained), list(resting)
    for module in resting:
        module.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    try:
        yield
    finally:
        for module in [*trained, *resting]:
            module.requires_grad_(True)
