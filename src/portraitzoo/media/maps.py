"""Pictures of what a clip holds besides its frames: depth, normals, opacity, the raw image."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from portraitzoo.errors import MediaError


def map_pictures(
    name: str, values: Shaped[Tensor, "time height width *channels"]
) -> UInt8[Tensor, "time height width 3"]:
    """RGB pictures of one of a clip's maps, for looking at.

    ``depth`` (and any other single-channel map of free range) in the turbo colours, near warm and far cold, one scale
    for the whole clip; ``opacity`` in grey; ``normals`` as ``(n + 1) / 2``, so +x is red, +y green, +z blue;
    ``position`` scaled per axis to its range over the clip; 8-bit maps as they are.

    Raises:
        MediaError: for a map that has neither one nor three channels.
    """
    values = values.squeeze(-1) if values.ndim == 4 and values.shape[-1] == 1 else values
    if values.ndim not in (3, 4) or (values.ndim == 4 and values.shape[-1] != 3):
        raise MediaError(f"the map {name!r} of shape {list(values.shape)} is no picture: it needs 1 or 3 channels")
    if values.dtype == torch.uint8:
        return values if values.ndim == 4 else values[..., None].expand(*values.shape, 3).contiguous()
    values = values.to(torch.float32)
    if name == "opacity":
        return _to_bytes(values[..., None].expand(*values.shape, 3))
    if name == "normals":
        return _to_bytes((values + 1) / 2)
    finite = torch.isfinite(values)
    low = values.where(finite, torch.inf).amin((0, 1, 2))
    high = values.where(finite, -torch.inf).amax((0, 1, 2))
    # What is not finite was hit by no ray and counts as far.
    scaled = ((values - low) / (high - low).clamp_min(1e-12)).where(finite, 1.0)
    if values.ndim == 4:
        return _to_bytes(scaled)
    near = _to_bytes(1 - scaled).numpy()
    return torch.from_numpy(
        np.stack([cv2.cvtColor(cv2.applyColorMap(frame, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB) for frame in near])
    )


def _to_bytes(unit: Tensor) -> UInt8[Tensor, "*shape"]:
    return (unit.clamp(0, 1) * 255 + 0.5).to(torch.uint8)
