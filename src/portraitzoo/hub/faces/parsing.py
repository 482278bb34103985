"""face-parsing.PyTorch's ``79999_iter.pth``: BiSeNet trained on CelebAMask-HQ."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.parsing import BiSeNet
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted, resnet_names, resnet_sizes

_PLAIN = {"ffm.conv1": "fusion.squeeze", "ffm.conv2": "fusion.excite"}
_NORMED = {
    "cp.conv_avg": "whole",
    "cp.conv_head16": "refine16",
    "cp.conv_head32": "refine32",
    "cp.arm16.conv": "attend16.conv",
    "cp.arm32.conv": "attend32.conv",
    "ffm.convblk": "fusion.conv",
}
_HEADS = {"conv_out": "head", "conv_out16": "head16", "conv_out32": "head32"}
_PLAIN |= {f"{official}.conv_out": f"{ours}.classes" for official, ours in _HEADS.items()}
_NORMED |= {f"{official}.conv": f"{ours}.conv" for official, ours in _HEADS.items()}
for _size in (16, 32):
    _PLAIN |= {f"cp.arm{_size}.conv_atten": f"attend{_size}.gate.conv"}
    _PLAIN |= {f"cp.arm{_size}.bn_atten": f"attend{_size}.gate.bn"}

TABLE = (
    *resnet_names("cp.resnet.", "resnet."),
    *(Rename(f"{official}.{{rest}}", f"{ours}.{{rest}}") for official, ours in _PLAIN.items()),
    *(
        Rename(f"{official}.{part}.{{rest}}", f"{ours}.{part}.{{rest}}")
        for official, ours in _NORMED.items()
        for part in ("conv", "bn")
    ),
)
"""Official names -> ours."""

_SIZES = {
    "stem": "cp.resnet.conv1.weight",
    "context": "cp.conv_avg.conv.weight",
    "fused": "ffm.convblk.conv.weight",
    "auxiliary": "conv_out16.conv.conv.weight",
    "classes": "conv_out.conv_out.weight",
}
"""Our settings, and the tensors whose first axis tells them."""


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of a network of any width.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    config: dict[str, object] = dict(resnet_sizes(checkpoint, "cp.resnet."))
    for setting, name in _SIZES.items():
        tensor = checkpoint.get(name)
        if not isinstance(tensor, Tensor) or tensor.ndim != 4:
            raise CheckpointError(f"the checkpoint lacks the tensor {name}: not a BiSeNet of face-parsing.PyTorch")
        config[setting] = len(tensor)
    return converted(checkpoint, BiSeNet, config, TABLE)
