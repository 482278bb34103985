"""Flat state dicts of networks that only measure, under our names."""

from __future__ import annotations

import re
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


def state_dict_of(checkpoint: Mapping[str, object], key: str = "state_dict") -> dict[str, object]:
    """A network's tensors in a file that may hold them under a key, or with ``module.`` before their names.

    Files that were written by several devices at once have that prefix.

    Args:
        checkpoint: the content of the file.
        key: where the tensors may be.

    Raises:
        CheckpointError: if something else is there.
    """
    inner = checkpoint.get(key, checkpoint)
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"{key} is a {type(inner).__name__}, where the network's tensors should be")
    return {str(name).removeprefix("module."): value for name, value in inner.items()}


def count_of(tensors: Mapping[str, object], name: str) -> int:
    """Length of a tensor's first axis, which tells the size of a layer.

    Raises:
        CheckpointError: if there is no such tensor.
    """
    found = tensors.get(name)
    if not isinstance(found, Tensor) or not found.ndim:
        raise CheckpointError(f"it lacks the tensor {name}")
    return len(found)


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


def resnet_sizes(checkpoint: Mapping[str, object], prefix: str = "") -> dict[str, list[int]]:
    """Blocks and width of each stage of torchvision's residual network, told by its tensors.

    Args:
        checkpoint: official name -> tensor.
        prefix: of the network's tensors in it, such as ``backbone.``.

    Returns:
        The arguments ``depths`` and ``widths`` of :class:`~portraitzoo.layers.resnet.ResNet`.

    Raises:
        CheckpointError: if there is no such network.
    """
    depths: dict[int, int] = {}
    widths: dict[int, int] = {}
    for name, tensor in checkpoint.items():
        found = re.fullmatch(re.escape(prefix) + r"layer(\d)\.(\d{1,3})\.conv1\.weight", name)
        if found and isinstance(tensor, Tensor) and tensor.ndim == 4:
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            widths[stage] = len(tensor)
    stages = range(1, len(depths) + 1)
    if not depths or set(depths) != set(stages):
        raise CheckpointError(f"it lacks the tensors of a residual network, {prefix}layer1.0.conv1.weight and so on")
    return {"depths": [depths[stage] for stage in stages], "widths": [widths[stage] for stage in stages]}


def residual_block_names(official: str, ours: str) -> list[Rename]:
    """Rows that rename one of torchvision's residual blocks, or all that a placeholder in both names stands for."""
    return [
        *(Rename(f"{official}.conv{k}.{{rest}}", f"{ours}.conv{k}.conv.{{rest}}") for k in (1, 2, 3)),
        *(Rename(f"{official}.bn{k}.{{rest}}", f"{ours}.conv{k}.bn.{{rest}}") for k in (1, 2, 3)),
        Rename(f"{official}.downsample.0.{{rest}}", f"{ours}.shortcut.conv.{{rest}}"),
        Rename(f"{official}.downsample.1.{{rest}}", f"{ours}.shortcut.bn.{{rest}}"),
    ]
