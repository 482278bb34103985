"""DiffAugment: augmentation that gradients pass through, for discriminators (Zhao et al., NeurIPS 2020).

Random numbers are arguments. They belong to a video: all frames of it change in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_SHIFT = 0.125
"""Translations reach this share of the image's side."""

LARGEST_CUT = 0.5
"""The square that is cut out has this share of the image's side."""


@dataclass(frozen=True)
class DiffAugmentDraws:
    """Random numbers of the policy "color,translation", one row for every video.

    Attributes:
        brightness: uniform in [0, 1); 0.5 changes nothing.
        saturation: uniform in [0, 1); 0.5 changes nothing.
        contrast: uniform in [0, 1); 0.5 changes nothing.
        shift: pixels by which the picture moves up and left, see :func:`largest_shift`.
    """

    brightness: Float[Tensor, " videos"]
    saturation: Float[Tensor, " videos"]
    contrast: Float[Tensor, " videos"]
    shift: Int[Tensor, "videos 2"]

    @classmethod
    def fresh(cls, size: int, generators: Sequence[torch.Generator]) -> DiffAugmentDraws:
        """New random numbers for pictures of ``size`` pixels a side, each video's from a generator of its own."""
        reach = largest_shift(size)
        colors = torch.stack([torch.rand(3, generator=one, device=one.device) for one in generators])
        shift = torch.stack(
            [torch.randint(-reach, reach + 1, (2,), generator=one, device=one.device) for one in generators]
        )
        brightness, saturation, contrast = colors.unbind(1)
        return cls(brightness, saturation, contrast, shift)


def largest_shift(size: int) -> int:
    """Pixels by which pictures of ``size`` pixels a side move at most, in each direction."""
    return int(size * LARGEST_SHIFT + 0.5)


def diffaugment(
    frames: Float[Tensor, "videos time channels height width"], draws: DiffAugmentDraws
) -> Float[Tensor, "videos time channels height width"]:
    """Colour changes, then translation ("color,translation"), the same for all frames of a video.

    Args:
        frames: in [-1, 1].
        draws: random numbers.
    """
    frames = change_colors(frames, draws.brightness, draws.saturation, draws.contrast)
    return translate(frames, draws.shift)


def change_colors(
    frames: Float[Tensor, "videos time channels height width"],
    brightness: Float[Tensor, " videos"],
    saturation: Float[Tensor, " videos"],
    contrast: Float[Tensor, " videos"],
) -> Float[Tensor, "videos time channels height width"]:
    """Brightness by up to +-0.5, saturation times 0 to 2, contrast times 0.5 to 1.5.

    Saturation is the distance of a pixel's channels from their mean, contrast that from the mean of the whole frame.

    Args:
        frames: in [-1, 1]; the result may leave that range.
        brightness: uniform in [0, 1).
        saturation: uniform in [0, 1).
        contrast: uniform in [0, 1).
    """
    brightness, saturation, contrast = (draw[:, None, None, None, None] for draw in (brightness, saturation, contrast))
    frames = frames + (brightness - 0.5)
    grey = frames.mean(dim=2, keepdim=True)
    frames = (frames - grey) * (2 * saturation) + grey
    level = frames.mean(dim=(2, 3, 4), keepdim=True)
    return (frames - level) * (contrast + 0.5) + level


def translate(
    frames: Float[Tensor, "videos time channels height width"], shift: Int[Tensor, "videos 2"]
) -> Float[Tensor, "videos time channels height width"]:
    """Move frames by whole pixels; what comes in at the border is 0.

    Args:
        frames: any range.
        shift: pixels up and left; negative ones move the other way.
    """
    inside = []
    for axis in (3, 4):
        size = frames.shape[axis]
        places = torch.arange(size, device=frames.device) + shift[:, axis - 3, None]
        shape = [len(frames), 1, 1, 1, 1]
        shape[axis] = size
        index = places.clamp(0, size - 1).reshape(shape)
        frames = frames.gather(axis, index.expand(frames.shape))
        inside.append(((places >= 0) & (places < size)).reshape(shape))
    return frames * (inside[0] & inside[1])


def cut_out(
    frames: Float[Tensor, "videos time channels height width"], centre: Int[Tensor, "videos 2"]
) -> Float[Tensor, "videos time channels height width"]:
    """Set a square of half the side to 0.

    Args:
        frames: any range.
        centre: row and column of the pixel after the square's middle; the square may hang over the border.
    """
    inside = []
    for axis in (3, 4):
        size = frames.shape[axis]
        side = int(size * LARGEST_CUT + 0.5)
        first = centre[:, axis - 3, None] - side // 2
        # What hangs over is pressed onto the border, so a square beyond it still blackens the outermost line.
        last = (first + side - 1).clamp(0, size - 1)
        first = first.clamp(0, size - 1)
        places = torch.arange(size, device=frames.device)
        shape = [len(frames), 1, 1, 1, 1]
        shape[axis] = size
        inside.append(((places >= first) & (places <= last)).reshape(shape))
    return frames * ~(inside[0] & inside[1])
