"""3DFAN's depth network (``depth-*.zip``, ``depth-*.pth.tar``)."""

from __future__ import annotations

from collections.abc import Mapping

from portraitzoo.faces.fan_depth import FanDepth
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted, count_of, resnet_names, resnet_sizes, state_dict_of

TABLE = (*resnet_names("", "backbone."), Rename("fc.{rest}", "fc.{rest}"))
"""Official names -> ours."""


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of the network alone or under ``state_dict``, of any size.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    tensors = state_dict_of(checkpoint)
    config = resnet_sizes(tensors) | {"landmarks": count_of(tensors, "fc.bias")}
    return converted(tensors, FanDepth, config, TABLE)
