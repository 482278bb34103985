"""How images become network inputs: the resizing rules of the evaluation tools, which differ and matter.

All take and return float ``[batch, channels, height, width]`` in the range of the input.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor


def channels_first(frames: UInt8[Tensor, "*batch height width 3"]) -> Float[Tensor, "frames 3 height width"]:
    """Bytes as float images 0..255, leading axes flattened; stays channels-last in memory, which resizes faster."""
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


def center_square(frames: Float[Tensor, "batch channels height width"], resolution: int) -> Tensor:
    """The largest central square, then bilinear to ``resolution``, not rounded (3DVidGen, StyleGAN-V)."""
    height, width = frames.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return bilinear(frames[..., top : top + side, left : left + side].float(), resolution, resolution)


def short_side_crop(frames: Float[Tensor, "batch channels height width"], resolution: int) -> Tensor:
    """Short side to ``resolution``, long side in proportion (rounded up), then the central square (VideoGPT, PV3D)."""
    height, width = frames.shape[-2:]
    scale = resolution / min(height, width)
    sizes = [resolution if side == min(height, width) else math.ceil(side * scale) for side in (height, width)]
    frames = bilinear(frames, *sizes)
    top, left = (sizes[0] - resolution) // 2, (sizes[1] - resolution) // 2
    return frames[..., top : top + resolution, left : left + resolution]
