"""PD-FGC's ``motion_model.pth``: the weights of the motion encoder that Portrait4D is driven by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from portraitzoo.faces.motion_embedding import MotionEncoder
from portraitzoo.hub.conversion import Conversion, Drop, Rename
from portraitzoo.hub.faces.fan import block_names, hourglass_names
from portraitzoo.hub.state_dicts import converted, count_of

TABLE = (
    *block_names("model.conv2", "features.block1"),
    *block_names("model.conv3", "features.block2"),
    *block_names("model.conv4", "features.block3"),
    *hourglass_names("model.m0", "features.hourglass"),
    *block_names("model.top_m_0", "features.block4"),
    *(
        Rename(f"model.{official}.{{rest}}", f"features.{ours}.{{rest}}")
        for official, ours in {
            "conv1": "input",
            "bn1": "input_norm",
            "conv_last0": "last",
            "bn_end0": "last_norm",
            "l0": "maps",
            "bn5": "maps_norm",
            "conv6": "merge",
            "fc": "output",
        }.items()
    ),
    Rename("to_headpose.{rest}", "head_pose.{rest}"),
    Rename("to_eye.{rest}", "eye.{rest}"),
    Rename("to_emo.{rest}", "emotion.{rest}"),
    Rename("to_mouth.{rest}", "mouth.{rest}"),
    Rename("headpose_embed.1.{rest}", "head_pose_code.{rest}"),
    Rename("eye_embed.1.{rest}", "eye_code.{rest}"),
    Rename("emo_embed.1.{rest}", "emotion_code.{rest}"),
)

DROPS = (Drop(r"mouth_embed\..+", "a layer behind the mouth's features that the motion embedding does without"),)


def convert(checkpoint: Mapping[str, Any]) -> Conversion:
    """Convert the encoder's state dict.

    Args:
        checkpoint: tensors by official names.

    Returns:
        Arguments of :class:`~portraitzoo.faces.motion_embedding.MotionEncoder`; file ``model``: its tensors.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    rows = {"width": "bn_end0.bias", "landmarks": "bn5.bias", "features": "fc.bias"}
    sizes = {size: count_of(checkpoint, f"model.{name}") for size, name in rows.items()}
    # Pictures are eight times as large as the map that the last layer sees.
    count_of(checkpoint, "model.fc.weight")
    sizes["input_size"] = 8 * math.isqrt(checkpoint["model.fc.weight"].shape[-1])
    return converted(checkpoint, MotionEncoder, sizes, TABLE, DROPS)
