"""RetinaFace's ``Resnet50_Final.pth``: official tensor names -> ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portraitzoo.faces.retinaface import RetinaFace
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted, count_of, resnet_names, resnet_sizes, state_dict_of

_WINDOWS = {
    "conv3X3": "window3",
    "conv5X5_1": "surroundings",
    "conv5X5_2": "window5",
    "conv7X7_2": "wider",
    "conv7x7_3": "window7",
}


def _conv_norm(official: str, ours: str) -> list[Rename]:
    places = {"0": "conv", "1": "bn"}
    return [Rename(f"{official}.{place}.{{rest}}", f"{ours}.{name}.{{rest}}") for place, name in places.items()]


NAMES = [
    *resnet_names("body.", "body."),
    *(row for k in (1, 2, 3) for row in _conv_norm(f"fpn.output{k}", f"pyramid.laterals.{k - 1}")),
    *(row for k in (1, 2) for row in _conv_norm(f"fpn.merge{k}", f"pyramid.merges.{k - 1}")),
    *(
        row
        for k in (1, 2, 3)
        for theirs, ours in _WINDOWS.items()
        for row in _conv_norm(f"ssh{k}.{theirs}", f"contexts.{k - 1}.{ours}")
    ),
    *(
        Rename(f"{official}.{{level}}.conv1x1.{{rest}}", f"{ours}.{{level}}.{{rest}}")
        for official, ours in {
            "ClassHead": "class_heads",
            "BboxHead": "box_heads",
            "LandmarkHead": "point_heads",
        }.items()
    ),
]


def convert(checkpoint: Mapping[str, Any]) -> Conversion:
    """Convert the detector's state dict, which may lie under ``state_dict`` and have ``module.`` before its names.

    Returns:
        Arguments of :class:`~portraitzoo.faces.retinaface.RetinaFace`, read off the tensors; file ``model``: its
        tensors.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    tensors = state_dict_of(checkpoint)
    config = {
        **resnet_sizes(tensors, "body."),
        "stem": count_of(tensors, "body.conv1.weight"),
        "channels": count_of(tensors, "fpn.output1.0.weight"),
    }
    return converted(tensors, RetinaFace, config, NAMES)
