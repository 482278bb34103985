"""How likely each pixel is skin, by its colour alone: Deep3DFaceRecon's attention on skin for the photometric loss
(Deng et al., CVPRW 2019, section 3.2; colour mixtures after Jones and Rehg, IJCV 2002).

Skin and everything else have a mixture of four Gaussians each over colours; Bayes' rule compares the two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError

SKIN_PRIOR = 0.8
"""Part of the pixels that are taken for skin before their colours are looked at."""
YCBCR, YCBCR_OFFSET = (
    ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214)),
    (16.0, 128.0, 128.0),
)
"""Luma and the two chroma of ITU-R BT.601, studio range, for red, green and blue in [0, 1]."""


class ColourMixture(NamedTuple):
    """A mixture of Gaussians over YCbCr colours in 255ths.

    Attributes:
        weights: of the components, summing to 1.
        means: their middle colours.
        determinants: of their covariances.
        precisions: the inverses of their covariances, upper triangle row by row: yy, yb, yr, bb, br, rr.
    """

    weights: tuple[float, ...]
    means: tuple[tuple[float, float, float], ...]
    determinants: tuple[float, ...]
    precisions: tuple[tuple[float, float, float, float, float, float], ...]

    def log_density(self, colours: Float[Tensor, "*pixels 3"]) -> Float[Tensor, "*pixels"]:
        """Natural logarithm of the density at YCbCr colours, up to a constant that all mixtures share.

        Logarithms, because far from every component the densities themselves are too small for a number.
        """
        components = []
        for weight, mean, determinant, (yy, yb, yr, bb, br, rr) in zip(*self, strict=True):
            y, b, r = (colours - colours.new_tensor(mean)).unbind(-1)
            distance = yy * y * y + bb * b * b + rr * r * r + 2 * (yb * y * b + yr * y * r + br * b * r)
            components.append(math.log(weight) - (math.log(determinant) + distance) / 2)
        return torch.stack(components).logsumexp(0)


SKIN = ColourMixture(
    weights=(0.24063933, 0.16365987, 0.26034665, 0.33535415),
    means=(
        (113.71862, 103.39613, 164.08226),
        (150.19858, 105.18467, 155.51428),
        (183.92976, 107.62468, 152.71820),
        (114.90524, 113.59782, 151.38217),
    ),
    determinants=(5692842.5, 5851930.5, 2329131.0, 1585971.0),
    precisions=(
        (0.0019472069, 0.0020450759, -0.00060243998, 0.017700525, 0.0051420014, 0.0081308950),
        (0.0027110141, 0.0011036990, 0.0023122299, 0.010707724, 0.010742856, 0.017481629),
        (0.0048026871, 0.00022935172, 0.0077668377, 0.011729696, 0.0081661865, 0.025374353),
        (0.0011989699, 0.0022453172, -0.0010748957, 0.047758564, 0.020332102, 0.024502251),
    ),
)
"""Colours of skin in photos."""
OTHER = ColourMixture(
    weights=(0.12791070, 0.31130761, 0.34245777, 0.21832393),
    means=(
        (99.200851, 112.07533, 140.20602),
        (110.91392, 125.52969, 130.19237),
        (129.75864, 129.96107, 126.96808),
        (112.29587, 128.85121, 129.05431),
    ),
    determinants=(458703648.0, 6466488.0, 90611376.0, 133097.63),
    precisions=(
        (0.00085371657, 0.00071197288, 0.00023958916, 0.0025935620, 0.00076557708, 0.0015042332),
        (0.00024650150, 0.00045542428, 0.00015019422, 0.026412144, 0.018419769, 0.037497383),
        (0.00037054974, 0.00038146760, 0.00040408765, 0.0085505722, 0.0079136286, 0.010982352),
        (0.00013709733, 0.00051228428, 0.00012777430, 0.28237113, 0.10528370, 0.23468947),
    ),
)
"""Colours of all else."""


def ycbcr(images: UInt8[Tensor, "*pixels 3"]) -> Float[Tensor, "*pixels 3"]:
    """Luma in [16, 235] and chroma in [16, 240] of RGB colours, not rounded, float64."""
    colours = images.double()
    return colours @ (colours.new_tensor(YCBCR).mT / 255) + colours.new_tensor(YCBCR_OFFSET)


def skin_mask(images: UInt8[Tensor, "batch height width 3"]) -> UInt8[Tensor, "batch height width"]:
    """The probability that each pixel is skin, in 255ths.

    Args:
        images: RGB.

    Raises:
        ZooError: for another shape or kind of numbers.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ZooError(
            f"pictures for a skin mask are uint8 [batch, height, width, 3] (RGB), not {images.dtype} "
            f"{list(images.shape)}"
        )
    colours = ycbcr(images)
    odds = SKIN.log_density(colours) - OTHER.log_density(colours) + math.log(SKIN_PRIOR / (1 - SKIN_PRIOR))
    return (255 * odds.sigmoid()).round().to(torch.uint8)
