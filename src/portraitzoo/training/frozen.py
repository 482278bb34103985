"""Networks that help training but are no part of what is trained."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class Frozen(Generic[Network]):
    """A network at rest: not trained, averaged, shared between processes or saved in checkpoints.

    It is no ``nn.Module`` on purpose. Gradients go through it to its inputs.

    Args:
        network: put into evaluation mode, without gradients of its own.
    """

    def __init__(self, network: Network) -> None:
        self._network = network.eval().requires_grad_(False)

    def on(self, device: torch.device) -> Network:
        """The network, moved to ``device`` if it is elsewhere."""
        held = next(self._network.parameters(), None)
        if held is not None and held.device != device:
            self._network.to(device)
        return self._network

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen[Network]:
        return self  # it never changes
