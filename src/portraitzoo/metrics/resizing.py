"""How images become network inputs: the resizing rules of the evaluation tools, which differ and matter.

All take and return float ``[batch, channels, height, width]`` in the range of the input.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor

from portraitzoo.errors import ZooError


def check_pixels(images: Tensor, axes: str, network: str) -> None:
    """Find out whether a network may look at pictures: uint8, or float32 in 0..255 (resized and not rounded).

    Args:
        images: the pictures.
        axes: names of the axes, the last of which is 3 long.
        network: what the message calls it.

    Raises:
        ZooError: for other shapes or types, and for floats that lie in 0..1 or in -1..1: taken for 0..255 they would
            give features of black pictures, and nobody would notice.
    """
    fits = images.ndim == len(axes.split()) and images.shape[-1] == 3
    if not fits or images.dtype not in (torch.uint8, torch.float32):
        kind = "clips" if "time" in axes else "images"
        shape = axes.replace(" ", ", ")
        raise ZooError(f"{network} takes uint8 {kind} [{shape}], not {images.dtype} {list(images.shape)}")
    if images.dtype == torch.float32 and images.abs().max() <= 1 and images.frac().any():
        raise ZooError(f"{network} takes floats of 0 to 255 and these lie within 1 of zero: multiply them by 255")


def channels_first(frames: Num[Tensor, "*batch height width 3"]) -> Float[Tensor, "frames 3 height width"]:
    """Pictures 0..255 as floats, leading axes flattened; stays channels-last in memory, which resizes faster."""
    return frames.flatten(0, -4).permute(0, 3, 1, 2).float()


def bilinear(images: Float[Tensor, "batch channels height width"], height: int, width: int) -> Tensor:
    """Bilinear, half-pixel centres, no antialias (PyTorch's and OpenCV's rule)."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def bilinear_tensorflow1(images: Float[Tensor, "batch channels height width"], height: int, width: int) -> Tensor:
    """Bilinear as TensorFlow 1 did: source position = target position * in / out, clamped at the border.

    The rule of the original FID, of StyleGAN's and of torch-fidelity. It shifts the image by up to half a pixel.
    """
    for axis, size in ((2, height), (3, width)):
        count = images.shape[axis]
        if count == size:
            continue
        position = torch.arange(size, dtype=torch.float32, device=images.device) * (count / size)
        low = position.long()
        high = (low + 1).clamp(max=count - 1)
        weight = (position - low).view(-1, *[1] * (3 - axis))
        images = torch.lerp(images.index_select(axis, low), images.index_select(axis, high), weight)
    return images


def bicubic_clean(images: Float[Tensor, "batch channels height width"], height: int, width: int) -> Tensor:
    """Antialiased bicubic in float, clamped to 0..255: clean-fid's rule (Parmar et al. 2022), which is Pillow's."""
    resized = F.interpolate(images, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255)


def short_side_crop(frames: Float[Tensor, "batch channels height width"], resolution: int) -> Tensor:
    """Short side to ``resolution``, long side in proportion (rounded up), then the central square (VideoGPT, PV3D)."""
    height, width = frames.shape[-2:]
    scale = resolution / min(height, width)
    sizes = [resolution if side == min(height, width) else math.ceil(side * scale) for side in (height, width)]
    frames = bilinear(frames, *sizes)
    top, left = (sizes[0] - resolution) // 2, (sizes[1] - resolution) // 2
    return frames[..., top : top + resolution, left : left + resolution]
