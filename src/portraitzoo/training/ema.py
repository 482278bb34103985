"""Exponential moving average of a network's weights."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def averaged_copy(network: Network) -> Network:
    """Copy of ``network`` in evaluation mode without gradients, to be moved by :func:`update_average`."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, beta: float) -> None:
    """``average = beta * average + (1 - beta) * network`` for parameters; buffers are copied.

    Args:
        average: copy of the same architecture, changed in place.
        network: the network in training.
        beta: decay in [0, 1], see :func:`portraitzoo.training.schedules.ema_beta`.
    """
    old: list[Tensor] = list(average.parameters())
    new = [parameter.to(place) for parameter, place in zip(network.parameters(), old, strict=True)]
    torch._foreach_lerp_(old, new, 1 - beta)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
