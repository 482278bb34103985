"""Portrait4D's mapper from the Basel face model to FLAME: ``model-iter200000.pth``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.bfm_to_flame import BfmToFlame
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted

NAMES = (Rename("maps.0.{rest}", "hidden.{rest}"), Rename("maps.2.{rest}", "output.{rest}"))


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of a mapper of any width.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    bias = checkpoint.get("maps.0.bias")
    if not isinstance(bias, Tensor):
        raise CheckpointError("the checkpoint lacks the tensor maps.0.bias: not the mapper to FLAME")
    return converted(checkpoint, BfmToFlame, {"width": len(bias)}, NAMES)
