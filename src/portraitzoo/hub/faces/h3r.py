"""H3R's ``model.pth`` of HRNet-W18 and WFLW: official tensor names -> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.h3r import H3R, LANDMARKS
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted, residual_block_names, resnet_sizes

HIDDEN = "heatmap_head.head.layers.0.weight"
OUTPUT = "heatmap_head.head.layers.3.weight"
BACKGROUND = "the first half of the channels, which tell the background from landmarks in training only"
_PARTS = (("0", "conv"), ("1", "bn"))
_BLOCK = re.compile(r"backbone\.stage([234])\.(\d{1,2})\.branches\.([0-3])\.(\d{1,2})\.conv1\.weight")


def _stage(number: int) -> list[Rename]:
    """Rows of one of the stages 2 to 4, which are 0 to 2 here, and of the transition to it."""
    ours, new = f"backbone.stages.{number - 2}", number - 1
    transition, exchange = f"backbone.transition{number - 1}", f"backbone.stage{number}.{{exchange}}"
    fusion, our_fusion = f"{exchange}.fuse_layers.{{to}}.{{of}}", f"{ours}.exchanges.{{exchange}}.fusions.{{to}}.{{of}}"
    rows = residual_block_names(
        f"{exchange}.branches.{{branch}}.{{block}}", f"{ours}.exchanges.{{exchange}}.branches.{{branch}}.{{block}}"
    )
    # One step of a descent has a level more than a convolution that is not strided; tried first, as "rest" stands for
    # anything. So has the transition to the new branch, compared with those of the others.
    for place, name in _PARTS:
        rows += [
            Rename(f"{transition}.{new}.0.{place}.{{rest}}", f"{ours}.transitions.{new}.{name}.{{rest}}"),
            Rename(f"{fusion}.{{step}}.{place}.{{rest}}", f"{our_fusion}.{{step}}.{name}.{{rest}}"),
        ]
    for place, name in _PARTS:
        rows += [
            Rename(f"{transition}.{{branch}}.{place}.{{rest}}", f"{ours}.transitions.{{branch}}.{name}.{{rest}}"),
            Rename(f"{fusion}.{place}.{{rest}}", f"{our_fusion}.{name}.{{rest}}"),
        ]
    return rows


NAMES = [
    *(
        Rename(f"backbone.{part}{number}.{{rest}}", f"backbone.stem{number}.{part}.{{rest}}")
        for number in (1, 2)
        for part in ("conv", "bn")
    ),
    *residual_block_names("backbone.layer1.{block}", "backbone.first.{block}"),
    *(row for number in (2, 3, 4) for row in _stage(number)),
    Rename("heatmap_head.head.layers.0.{rest}", "hidden.conv.{rest}"),
    Rename("heatmap_head.head.layers.1.{rest}", "hidden.bn.{rest}"),
    Rename("heatmap_head.head.layers.3.{rest}", "heatmaps.{rest}"),
]


def convert(checkpoint: Mapping[str, Any]) -> Conversion:
    """Convert the landmark network's state dict.

    Returns:
        Arguments of :class:`~portraitzoo.faces.h3r.H3R`, read off the tensors; file ``model``: its tensors.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    hidden, output = (checkpoint.get(name) for name in (HIDDEN, OUTPUT))
    if not isinstance(hidden, Tensor) or not isinstance(output, Tensor):
        raise CheckpointError(f"the checkpoint lacks the tensor {HIDDEN} or {OUTPUT}: it is none of H3R")
    if len(output) != 2 * LANDMARKS:
        raise CheckpointError(f"the tensor {OUTPUT} has {len(output)} channels, not {2 * LANDMARKS}")
    tensors = {**checkpoint, OUTPUT: output[LANDMARKS:]}
    conversion = converted(tensors, H3R, {**_sizes(checkpoint), "hidden": len(hidden)}, NAMES)
    return Conversion(conversion.config, conversion.tensors, conversion.dropped | {OUTPUT: BACKGROUND})


def _sizes(checkpoint: Mapping[str, Any]) -> dict[str, list]:
    """Widths and depths of every stage's branches, and how many modules the stages have."""
    first = resnet_sizes(checkpoint, "backbone.")
    widths, depths, exchanges = [first["widths"]], [first["depths"]], [1]
    for stage in (2, 3, 4):
        branches: dict[int, int] = dict.fromkeys(range(stage), 0)
        blocks, modules = dict(branches), 0
        for name, tensor in checkpoint.items():
            found = _BLOCK.fullmatch(name)
            if found and int(found[1]) == stage and isinstance(tensor, Tensor) and tensor.ndim == 4:
                module, branch, block = (int(part) for part in found.groups()[1:])
                modules = max(modules, module + 1)
                branches[branch], blocks[branch] = len(tensor), max(blocks.get(branch, 0), block + 1)
        if len(branches) != stage or not all(branches.values()):
            raise CheckpointError(f"the checkpoint lacks the tensors of backbone.stage{stage}: it is none of H3R")
        widths.append(list(branches.values()))
        depths.append(list(blocks.values()))
        exchanges.append(modules)
    return {"widths": widths, "depths": depths, "exchanges": exchanges}
