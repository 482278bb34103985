"""The Basel face model from the file that its users obtain themselves, under the model's own licence.

Deep3DFaceRecon's scripts make ``BFM_model_front.mat`` of the Basel face model 2009 (registration, research only). It is
looked for in the folder named by the environment variable ``PORTRAITZOO_BFM``, else in ``bfm`` below the cache, at any
depth.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.bfm import BaselFace, BfmArrays, Centring
from portraitzoo.hub.cache import cache_root
from portraitzoo.hub.matlab_files import read_matlab

VARIABLE = "PORTRAITZOO_BFM"
MODEL = "BFM_model_front.mat"
HOME = "https://faces.dmi.unibas.ch/bfm"
SCRIPTS = "https://github.com/sicxu/Deep3DFaceRecon_pytorch"
NAMES = {
    "mean": "meanshape",
    "identity": "idBase",
    "expression": "exBase",
    "albedo": "meantex",
    "texture": "texBase",
    "triangles": "tri",
    "rings": "point_buf",
    "keypoints": "keypoints",
}
"""Our names of the arrays, and the file's."""
_INDICES = ("triangles", "rings", "keypoints")


def bfm_folder() -> Path:
    """Where the model's file is looked for; the folder may not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else cache_root() / "bfm"


def load_bfm(folder: str | Path | None = None, centring: Centring = "portrait4d") -> BaselFace:
    """The Basel face model from its file.

    Args:
        folder: where it is; :func:`bfm_folder` if None.
        centring: as of :class:`~portraitzoo.faces.bfm.BaselFace`.

    Raises:
        ZooError: if the file is missing (telling where to get it), damaged, or of another structure.
    """
    root = Path(folder) if folder is not None else bfm_folder()
    found = sorted(root.rglob(MODEL))
    if not found:
        raise ZooError(
            f"the Basel face model is not there: get the model of 2009 from {HOME} under its own licence, make {MODEL} "
            f"of it with the scripts of {SCRIPTS}, and put it into {root} (or name a folder by {VARIABLE})"
        )
    return BaselFace(read_bfm(found[0]), centring)


def read_bfm(path: str | Path) -> BfmArrays:
    """The arrays of a file of :data:`MODEL`'s structure, indices counted from 0.

    Raises:
        ZooError: in one line, if it is no such file.
    """
    found = read_matlab(path, NAMES.values(), "Deep3DFaceRecon's form of the Basel face model")
    arrays = {ours: found[name] for ours, name in NAMES.items()}
    for name in _INDICES:
        arrays[name] = arrays[name].astype(np.int64) - 1
    arrays["keypoints"] = arrays["keypoints"].reshape(-1)
    try:
        for name in ("mean", "albedo"):
            arrays[name] = arrays[name].astype(np.float64).reshape(-1, 3)
        for name in ("identity", "expression", "texture"):
            arrays[name] = arrays[name].astype(np.float32).reshape(-1, 3, arrays[name].shape[-1])
        return BfmArrays(**arrays)
    except (ValueError, ZooError) as error:
        raise CheckpointError(f"{path} does not make a face: {error}") from error
