"""Boxes around faces: what a one-stage detector measures its answers against, which boxes stay, what they cut out.

Corners are x1, y1, x2, y2; x to the right, y down.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.images import check_image

STEPS = (8, 16, 32)
"""Pixels between the cells of the three levels."""
SIZES = ((16, 32), (64, 128), (256, 512))
"""Sides of the two priors in every cell of a level, pixels."""
VARIANCES = (0.1, 0.2)
"""Units of what is said about positions and about logarithms of sizes."""
LARGEST_CUT = 16
"""How many times as long as the picture's longer side a cut may be."""


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # else a first call from there would leave a tensor that nobody can train with
def priors(height: int, width: int) -> Float[Tensor, "priors 4"]:
    """The boxes that a detector's answers are relative to (RetinaFace, arXiv:1905.00641, section 4.2, anchor settings).

    Level by level, row by row, the smaller before the larger in each cell. They are made once for each size of picture
    and belong to all callers: not to be written into.

    Args:
        height: of the network's input, pixels.
        width: of the network's input, pixels.

    Returns:
        Middles x, y and sizes w, h as parts of the input's width and height.
    """
    extent = torch.tensor([width, height], dtype=torch.float64)
    levels = []
    for step, sides in zip(STEPS, SIZES, strict=True):
        rows, columns = (torch.arange(math.ceil(side / step), dtype=torch.float64) + 0.5 for side in (height, width))
        y, x = torch.meshgrid(rows * step, columns * step, indexing="ij")
        middles = (torch.stack([x, y], dim=-1) / extent)[:, :, None].expand(-1, -1, len(sides), -1)
        sizes = torch.tensor(sides, dtype=torch.float64)[:, None] / extent
        levels.append(torch.cat([middles, sizes.expand_as(middles)], dim=-1).flatten(0, 2))
    return torch.cat(levels).float()


def decode_boxes(
    offsets: Float[Tensor, "*batch priors 4"], priors: Float[Tensor, "priors 4"]
) -> Float[Tensor, "*batch priors 4"]:
    """Corners of the boxes that are described relative to :func:`priors`, in the priors' unit.

    Args:
        offsets: shift of the middle in tenths of the prior's size; fifths of the logarithm of how many times as large.
        priors: middles and sizes.
    """
    middles = priors[:, :2] + offsets[..., :2] * VARIANCES[0] * priors[:, 2:]
    halves = priors[:, 2:] * torch.exp(offsets[..., 2:] * VARIANCES[1]) / 2
    return torch.cat([middles - halves, middles + halves], dim=-1)


def encode_boxes(
    boxes: Float[Tensor, "*batch priors 4"], priors: Float[Tensor, "priors 4"]
) -> Float[Tensor, "*batch priors 4"]:
    """Offsets that :func:`decode_boxes` turns into the corners ``boxes``: what a detector learns to say."""
    middles, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    shifts = (middles - priors[:, :2]) / (VARIANCES[0] * priors[:, 2:])
    return torch.cat([shifts, torch.log(sizes / priors[:, 2:]) / VARIANCES[1]], dim=-1)


def decode_points(
    offsets: Float[Tensor, "*batch priors points 2"], priors: Float[Tensor, "priors 4"]
) -> Float[Tensor, "*batch priors points 2"]:
    """Points that are described by their distance from the priors' middles, in tenths of the priors' sizes."""
    return priors[:, None, :2] + offsets * VARIANCES[0] * priors[:, None, 2:]


def encode_points(
    points: Float[Tensor, "*batch priors points 2"], priors: Float[Tensor, "priors 4"]
) -> Float[Tensor, "*batch priors points 2"]:
    """Offsets that :func:`decode_points` turns into ``points``."""
    return (points - priors[:, None, :2]) / (VARIANCES[0] * priors[:, None, 2:])


def suppress(boxes: Float[Tensor, "boxes 4"], overlap: float) -> Int64[Tensor, " kept"]:
    """Non-maximum suppression: leave out every box that overlaps a better one which stays.

    Args:
        boxes: corners in pixels, the best first. The corners' pixels belong to the box: a side is x2 - x1 + 1 long.
        overlap: intersection over union up to which two boxes are two faces.

    Returns:
        Indices of the boxes that stay, ascending.
    """
    first, last = boxes[:, :2], boxes[:, 2:]
    areas = (last - first + 1).prod(dim=1)
    left, kept = torch.arange(len(boxes), device=boxes.device), []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(best)
        sides = torch.minimum(last[rest], last[best]) - torch.maximum(first[rest], first[best]) + 1
        shared = sides.clamp(min=0).prod(dim=1)
        left = rest[shared / (areas[rest] + areas[best] - shared) <= overlap]
    return torch.stack(kept) if kept else left


def tight_box(landmarks: Float[Tensor, "*batch landmarks 2"]) -> Float[Tensor, "*batch 4"]:
    """The smallest box around landmarks."""
    return torch.cat([landmarks.amin(dim=-2), landmarks.amax(dim=-2)], dim=-1)


def square_box(box: Float[Tensor, "*batch 4"], ratio: float) -> Float[Tensor, "*batch 4"]:
    """Square about the middle of a box, ``ratio`` times as long as a square of its area (its corners' pixels count)."""
    first, last = box[..., :2], box[..., 2:]
    half = ratio / 2 * (last - first + 1).prod(dim=-1, keepdim=True).sqrt()
    middle = (first + last) / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def corners(box: Float[Tensor, " 4"]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of a box of a face.

    Raises:
        ZooError: if it is not four finite numbers, or empty.
    """
    if box.shape != (4,) or not torch.isfinite(box).all():
        raise ZooError(f"the box of a face is four finite numbers x1, y1, x2, y2, not {box.tolist()}")
    x1, y1, x2, y2 = box.tolist()
    if x1 >= x2 or y1 >= y2:
        raise ZooError(f"the box of a face is empty: from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g})")
    return x1, y1, x2, y2


def cut(
    image: UInt8[Tensor, "height width 3"], box: Float[Tensor, " 4"]
) -> tuple[UInt8[Tensor, "rows columns 3"], tuple[int, int]]:
    """The part of a picture within a box, black where the box leaves the picture.

    Args:
        image: any picture.
        box: corners; they are cut down to whole pixels toward zero, and the last row and column do not belong to it.

    Returns:
        The part, and x and y of its first pixel in the picture.

    Raises:
        ZooError: if this is no picture or no box, or the box holds no pixel or is many times as large as the picture.
    """
    check_image(image)
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (int(value) for value in corners(box))
    where = f"from ({x1}, {y1}) to ({x2}, {y2}), of an image of {width} x {height} pixels"
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        raise ZooError(f"the box of a face, {where}, holds none of them")
    if max(x2 - x1, y2 - y1) > LARGEST_CUT * max(height, width):
        raise ZooError(f"the box of a face, {where}, is over {LARGEST_CUT} times as large")
    inside = image[max(y1, 0) : y2, max(x1, 0) : x2]
    padding = (0, 0, max(-x1, 0), max(x2 - width, 0), max(-y1, 0), max(y2 - height, 0))
    return F.pad(inside, padding), (x1, y1)
