"""What the reenactment metrics need of a 3D face reconstruction, and files that hold its results (or masks).

The networks themselves stand elsewhere; any object with these three methods serves, and so do numbers that were
computed before and lie in a file beside each video.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import CheckpointError, MediaError, ZooError
from portraitzoo.hub.converting import dotted
from portraitzoo.media.arrays import DAMAGE, read_archive

Quantity = Literal["keypoints", "pose", "expression"]
QUANTITIES: tuple[Quantity, ...] = ("keypoints", "pose", "expression")
MASK = "mask"
"""Map of the pixels that count, [time, height, width]: 0 outside."""
SUFFIX = ".face.npz"


class FaceReconstruction(Protocol):
    """Reads keypoints, head pose and expression off frames.

    Attributes:
        checksum: changes with whatever changes its results; part of the key of cached distances.
    """

    checksum: str

    def keypoints(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch points 2"]:
        """Facial keypoints (x right, y down) in pixels; NaN for a frame in which no face is found."""

    def pose(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch angles"]:
        """Head pose, in practice yaw, pitch and roll in degrees; NaN where no face is found."""

    def expression(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch coefficients"]:
        """Expression coefficients of a parametric head; NaN where no face is found."""


def reconstruction_of(given: FaceReconstruction | str | None) -> FaceReconstruction | None:
    """The reconstruction itself, or an instance of the class at a dotted path.

    Raises:
        ZooError: if there is no such class, or its instances lack a method.
    """
    if given is None:
        return None
    if isinstance(given, str):
        try:
            given = cast(FaceReconstruction, dotted(given)())
        except (CheckpointError, TypeError) as error:
            raise ZooError(f"no face reconstruction can be made of {given!r}: give the path of a class") from error
    lacking = [name for name in (*QUANTITIES, "checksum") if not hasattr(given, name)]
    if lacking:
        raise ZooError(f"a {type(given).__name__} is no face reconstruction: it has no {lacking[0]}")
    return given


def parameter_file(item: Path) -> Path:
    """Where the numbers of a video, frame folder or image lie: ``NAME.face.npz`` beside it."""
    return item.with_name(item.stem + SUFFIX) if item.is_file() else item.with_name(item.name + SUFFIX)


def read_parameters(path: Path, quantities: Collection[str], start: int, stop: int) -> dict[str, Tensor]:
    """Those of the quantities (and the mask) that a file of numbers holds, float32 [frames, ...], from start to stop.

    Args:
        path: an ``.npz`` with ``keypoints`` [frames, points, 2], ``pose`` [frames, angles] or ``expression`` [frames,
            coefficients], ``mask`` [frames, height, width], or several of them.
        quantities: names that are wanted; others are left alone.
        start: first frame.
        stop: frame after the last.

    Raises:
        MediaError: if the file is damaged, or has fewer frames.
    """
    found = {}
    try:
        for name, array in read_archive(path, set(quantities) & {*QUANTITIES, MASK}).items():
            values = torch.from_numpy(np.asarray(array, dtype=np.float32))
            if values.ndim < 2 or len(values) < stop:
                raise MediaError(f"{path} has {name} of shape {list(values.shape)}, {stop} frames are needed")
            found[name] = values[start:stop]
    except DAMAGE as error:
        raise MediaError(f"{path} is damaged: write it again") from error
    return found
