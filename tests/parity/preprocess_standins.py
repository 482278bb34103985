"""The made-up face models that the reference numbers of preprocessing were made with."""

import importlib.util
import re
from functools import lru_cache
from types import ModuleType

import numpy as np
import reference
import torch

from portraitzoo.faces.bfm import BfmArrays
from portraitzoo.faces.flame import FLAME
from portraitzoo.hub.bfm_files import NAMES


@lru_cache(maxsize=1)
def standins() -> ModuleType:
    """The module beside the numbers that draws them."""
    path = reference.reference_folder("preprocess") / "standins.py"
    spec = importlib.util.spec_from_file_location("standins", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def basel(*size: int) -> BfmArrays:
    """A Basel face model of so many vertices, faces and rows; of the real shapes by default."""
    drawn = standins().bfm(*size)
    arrays = {ours: np.asarray(drawn[name]) for ours, name in NAMES.items()}
    for name in ("triangles", "rings", "keypoints"):
        arrays[name] = arrays[name] - 1
    for name in ("mean", "albedo"):
        arrays[name] = arrays[name].reshape(-1, 3)
    for name in ("identity", "expression", "texture"):
        arrays[name] = arrays[name].reshape(-1, 3, arrays[name].shape[1])
    return BfmArrays(**arrays | {"keypoints": arrays["keypoints"].reshape(-1)})


def sizes(about: str) -> tuple[int, ...]:
    """Size of the small Basel face model, as in "bfm(441, 882, 21)"."""
    return tuple(int(number) for number in re.search(r"bfm\((\d+), (\d+), (\d+)\)", about).groups())


@lru_cache(maxsize=1)
def flame() -> FLAME:
    """FLAME as its arrays come: neither scaled nor moved."""
    drawn = standins().flame()
    model = FLAME(len(drawn["v_template"]), len(drawn["f"]))
    ours = {"weights": "lbs_weights", "f": "faces", "full_lmk_faces_idx": "full_faces"}
    ours |= {"full_lmk_bary_coords": "full_barycentric", "posedirs": "posedirs"}
    for name, array in drawn.items():
        value = torch.from_numpy(np.array(array))
        target = ours.get(name, name)
        if target == "posedirs":
            value = value.reshape(-1, value.shape[-1]).T
        if target != "kintree_table":
            getattr(model, target).copy_(value)
    return model
