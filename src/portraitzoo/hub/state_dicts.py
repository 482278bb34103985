"""Flat state dicts of networks that only measure, under our names."""

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


def resnet_names(official: str = "", ours: str = "", stages: int = 4) -> list[Rename]:
    """Rows that rename torchvision's residual network to :class:`~portraitzoo.layers.resnet.ResNet`.

    Args:
        official: prefix of its tensors in the checkpoint, such as ``backbone.``.
        ours: prefix of the network in ours.
        stages: how many it has.
    """
    rows = [
        Rename(f"{official}conv1.{{rest}}", f"{ours}stem.conv.{{rest}}"),
        Rename(f"{official}bn1.{{rest}}", f"{ours}stem.bn.{{rest}}"),
    ]
    for stage in range(stages):
        theirs, block = f"{official}layer{stage + 1}.{{block}}", f"{ours}stages.{stage}.{{block}}"
        rows += residual_block_names(theirs, block)
    return rows


def residual_block_names(official: str, ours: str) -> list[Rename]:
    """Rows that rename one of torchvision's residual blocks, or all that a placeholder in both names stands for."""
    return [
        *(Rename(f"{official}.conv{k}.{{rest}}", f"{ours}.conv{k}.conv.{{rest}}") for k in (1, 2, 3)),
        *(Rename(f"{official}.bn{k}.{{rest}}", f"{ours}.conv{k}.bn.{{rest}}") for k in (1, 2, 3)),
        Rename(f"{official}.downsample.0.{{rest}}", f"{ours}.shortcut.conv.{{rest}}"),
        Rename(f"{official}.downsample.1.{{rest}}", f"{ours}.shortcut.bn.{{rest}}"),
    ]
