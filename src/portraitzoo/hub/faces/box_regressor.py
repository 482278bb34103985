"""Deep3DFaceRecon's regressor of boxes from five landmarks: ``BBRegressorParam_r.mat``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.box_regressor import BoxRegressor
from portraitzoo.faces.model_arrays import check_arrays
from portraitzoo.hub.matlab_files import read_matlab

NAMES = {"W1": "hidden.weight", "B1": "hidden.bias", "W2": "output.weight", "B2": "output.bias"}
"""The file's names of the arrays, and ours."""


def read_box_regressor(path: str | Path) -> BoxRegressor:
    """The network of a file, for inference.

    Raises:
        ZooError: in one line, if it is no such file.
    """
    arrays = read_matlab(path, NAMES, "Deep3DFaceRecon's regressor of boxes")
    try:
        return box_regressor(arrays)
    except ZooError as error:
        raise CheckpointError(f"{path} makes no regressor of boxes: {error}") from error


def box_regressor(arrays: Mapping[str, np.ndarray]) -> BoxRegressor:
    """The network of arrays by the file's names: W1 [width, 10], B1 [width, 1], W2 [3, width], B2 [3, 1].

    Raises:
        ZooError: naming the array that does not fit.
    """
    width = len(arrays["W1"])
    floats = {name: arrays[name].astype(np.float64) for name in NAMES}
    shapes = {"W1": (width, 10), "B1": (width, 1), "W2": (3, width), "B2": (3, 1)}
    check_arrays("regressor of boxes", "Deep3DFaceRecon's is wanted", floats, shapes, {})
    network = BoxRegressor(width)
    network.load_state_dict(
        {ours: torch.from_numpy(floats[name].reshape(shapes[name])).squeeze(-1) for name, ours in NAMES.items()}
    )
    return network.eval().requires_grad_(False)
