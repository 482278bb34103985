"""PD-FGC's ``motion_model.pth``: the weights of the motion encoder that Portrait4D is driven by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.motion_embedding import HOURGLASS_DEPTH, MotionEncoder
from portraitzoo.hub.conversion import Conversion, Drop, Rename, convert_tensors

_BLOCK = {f"conv{index}": f"conv{index}" for index in (1, 2, 3)} | {f"bn{index}": f"norm{index}" for index in (1, 2, 3)}
_BLOCK |= {"downsample.0": "shortcut.0", "downsample.2": "shortcut.2"}


def _blocks() -> Iterator[tuple[str, str]]:
    """Official and our name of each block."""
    yield from (("conv2", "block1"), ("conv3", "block2"), ("conv4", "block3"), ("top_m_0", "block4"))
    for level in range(HOURGLASS_DEPTH, 0, -1):
        ours = "hourglass." + "inner." * (HOURGLASS_DEPTH - level)
        yield from ((f"m0.b1_{level}", ours + "beside"), (f"m0.b2_{level}", ours + "before"))
        yield f"m0.b3_{level}", ours + "after"
    yield "m0.b2_plus_1", "hourglass" + ".inner" * HOURGLASS_DEPTH


TABLE = (
    *(
        Rename(f"model.{official}.{theirs}.{{rest}}", f"features.{block}.{name}.{{rest}}")
        for official, block in _blocks()
        for theirs, name in _BLOCK.items()
    ),
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
    for name, value in checkpoint.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"the checkpoint's entry {name} is not a tensor: not PD-FGC's encoder")
    sizes = {}
    for name, ours in {"bn_end0": "width", "bn5": "landmarks", "fc": "features"}.items():
        if f"model.{name}.bias" not in checkpoint:
            raise CheckpointError(f"the checkpoint lacks the tensor model.{name}.bias: not PD-FGC's encoder")
        sizes[ours] = len(checkpoint[f"model.{name}.bias"])
    # Pictures are eight times as large as the map that the last layer sees.
    sizes["input_size"] = 8 * round(checkpoint["model.fc.weight"].shape[1] ** 0.5)
    with torch.device("meta"):
        empty = MotionEncoder(**sizes)
    expected = {name: value.shape for name, value in empty.state_dict().items()}
    tensors, dropped = convert_tensors(checkpoint, TABLE, DROPS, expected)
    return Conversion(dict(sizes), {"model": tensors}, dropped)
