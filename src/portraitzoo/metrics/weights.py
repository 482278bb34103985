"""Released weights of feature networks under our names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import Conversion, Drop, Rename, convert_tensors

COUNTERS = Drop(r"(.+\.)?num_batches_tracked", "a count of training batches, which evaluation does not use")
"""Released files come with and without them."""


def converted(
    checkpoint: Mapping[str, object],
    network: Callable[..., nn.Module],
    config: Mapping[str, Any],
    renames: Sequence[Rename],
    drops: Sequence[Drop] = (),
) -> Conversion:
    """Convert a flat state dict to the tensors of ``network(**config)``.

    Args:
        checkpoint: official name -> tensor.
        network: our class.
        config: its arguments.
        renames: table of names.
        drops: what is left out besides the counters of batch norms.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected, no tensor, or of another shape.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in checkpoint.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name} is a {type(value).__name__}, where a flat state dict has a tensor")
        tensors[name] = value
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in network(**config).state_dict().items()}
    ours, dropped = convert_tensors(tensors, renames, [COUNTERS, *drops], expected)
    return Conversion(dict(config), {"model": {name: tensor.float() for name, tensor in ours.items()}}, dropped)
