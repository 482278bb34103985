"""Structural similarity, of one scale and of several, by torchmetrics.

Implementations differ in the window, in the range and at the border, and none of the five systems has one in its code.
Here the window is a Gaussian of 11 x 11 pixels (sigma 1.5), the range 1, K1 = 0.01, K2 = 0.03, as in the paper (Wang et
al. 2004, section III.C), and the border over which the window reaches is left out, as the authors' program does. That
is scikit-image's value with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``, not with its defaults.
torchmetrics' own mean counts the border with mirrored pixels; for several scales it is taken as it is.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from portraitzoo.errors import ZooError
from portraitzoo.metrics.resizing import channels_first

WINDOW = 11
MULTISCALE_LEAST = WINDOW * 2**4  # five scales, each half the one before, and a window on the smallest


def ssim(
    images: UInt8[Tensor, "batch height width 3"], targets: UInt8[Tensor, "batch height width 3"]
) -> Float[Tensor, " batch"]:
    """Structural similarity of each pair, at most 1: mean over pixels and the three colours.

    Raises:
        ZooError: for images smaller than the window.
    """
    _check("SSIM", images, WINDOW)
    first, second = (channels_first(x) / 255 for x in (images, targets))
    _, everywhere = structural_similarity_index_measure(
        first, second, data_range=1.0, reduction="none", return_full_image=True
    )
    border = WINDOW // 2
    return everywhere[..., border:-border, border:-border].mean((1, 2, 3))


def ms_ssim(
    images: UInt8[Tensor, "batch height width 3"], targets: UInt8[Tensor, "batch height width 3"]
) -> Float[Tensor, " batch"]:
    """Multi-scale structural similarity of each pair (Wang et al. 2003), five scales, negative contrasts set to 0.

    Raises:
        ZooError: for images of fewer than 176 pixels a side.
    """
    _check("MS-SSIM", images, MULTISCALE_LEAST)
    first, second = (channels_first(x) / 255 for x in (images, targets))
    found = multiscale_structural_similarity_index_measure(
        first, second, data_range=1.0, reduction="none", normalize="relu"
    )
    return torch.as_tensor(found).reshape(-1)


def _check(title: str, images: Tensor, least: int) -> None:
    height, width = images.shape[1:3]
    if min(height, width) < least:
        raise ZooError(f"{title} needs images of {least} pixels or more a side, not {width}x{height}")
