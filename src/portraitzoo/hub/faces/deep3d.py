"""Deep3DFaceRecon's ``epoch_20.pth``: the regressor of face coefficients."""

from __future__ import annotations

from collections.abc import Mapping

from portraitzoo.faces.deep3d import HEADS, Deep3D
from portraitzoo.hub.conversion import Conversion, Rename
from portraitzoo.hub.state_dicts import converted, resnet_names, resnet_sizes, state_dict_of

TABLE = (
    *resnet_names("backbone.", "backbone."),
    *(Rename(f"final_layers.{place}.{{rest}}", f"heads.{name}.{{rest}}") for place, name in enumerate(HEADS)),
)
"""Official names -> ours."""


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Weights of a training checkpoint, which holds the regressor beside optimisers, or of its state dict alone.

    Raises:
        CheckpointError: naming what is missing, unexpected or of another shape.
    """
    tensors = state_dict_of(checkpoint, "net_recon")
    return converted(tensors, Deep3D, resnet_sizes(tensors, "backbone."), TABLE)
