"""3DFAN's heatmap network (``3DFAN4-*.zip``, ``3DFAN4-*.pth.tar``), and names that face alignment networks share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from portraitzoo.faces.fan import FAN
from portraitzoo.faces.hourglass import HOURGLASS_DEPTH
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted, count_of, state_dict_of

_BLOCK = {f"conv{index}": f"conv{index}" for index in (1, 2, 3)} | {f"bn{index}": f"norm{index}" for index in (1, 2, 3)}
_BLOCK |= {"downsample.0": "shortcut.0", "downsample.2": "shortcut.2"}


def block_names(official: str, ours: str) -> list[Rename]:
    """Rows that rename a :class:`~portraitzoo.faces.hourglass.HierarchicalBlock`."""
    return [Rename(f"{official}.{theirs}.{{rest}}", f"{ours}.{name}.{{rest}}") for theirs, name in _BLOCK.items()]


def hourglass_names(official: str, ours: str) -> list[Rename]:
    """Rows that rename a :class:`~portraitzoo.faces.hourglass.Hourglass`."""
    rows = block_names(f"{official}.b2_plus_1", ours + ".inner" * HOURGLASS_DEPTH)
    for level in range(HOURGLASS_DEPTH, 0, -1):
        here = ours + ".inner" * (HOURGLASS_DEPTH - level)
        for place, name in {"b1": "beside", "b2": "before", "b3": "after"}.items():
            rows += block_names(f"{official}.{place}_{level}", f"{here}.{name}")
    return rows


TABLE = (
    Rename("conv1.{rest}", "stem.conv.{rest}"),
    Rename("bn1.{rest}", "stem.bn.{rest}"),
    *block_names("conv2", "block1"),
    *block_names("conv3", "block2"),
    *block_names("conv4", "block3"),
    *hourglass_names("m{stack}", "stacks.{stack}.hourglass"),
    *block_names("top_m_{stack}", "stacks.{stack}.block"),
    *(
        Rename(f"{official}{{stack}}.{{rest}}", f"stacks.{{stack}}.{ours}.{{rest}}")
        for official, ours in {
            "conv_last": "features.conv",
            "bn_end": "features.bn",
            "bl": "from_features",
            "al": "from_maps",
            "l": "maps",
        }.items()
    ),
)
"""Official names -> ours."""


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of the network alone or under ``state_dict``, of any size.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    rows = {"stem": "conv1.weight", "width": "conv_last0.weight", "landmarks": "l0.weight"}
    tensors = state_dict_of(checkpoint)
    sizes = {size: count_of(tensors, name) for size, name in rows.items()}
    sizes["stacks"] = sum(re.fullmatch(r"l\d{1,2}\.weight", name) is not None for name in tensors)
    return converted(tensors, FAN, sizes, TABLE)
