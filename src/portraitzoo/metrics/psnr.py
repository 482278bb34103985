"""Peak signal-to-noise ratio inside a mask, in the ways of NPVA, which do not compare with each other."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

PEAK = 255.0


def masked_mse(
    images: Float[Tensor, "batch height width 3"],
    targets: Float[Tensor, "batch height width 3"],
    valid: Bool[Tensor, "batch height width"],
    *,
    valid_only: bool = False,
) -> Float[Tensor, " batch"]:
    """Mean squared error of each image inside the mask, on the scale 0 to 255.

    Args:
        images: values in [0, 1]; not clipped.
        targets: values in [0, 1].
        valid: pixels that count; elsewhere both images are taken as black.
        valid_only: divide by the valid pixels (NPVA's training log and list of images) instead of by all (NPVA's
            reported evaluation, where black pixels make the error smaller).

    Returns:
        float64; NaN where ``valid_only`` finds no pixel.
    """
    squared = ((images - targets).double() * PEAK).square() * valid[..., None]
    total = squared.sum((1, 2, 3))
    count = valid.sum((1, 2)) * images.shape[-1] if valid_only else squared[0].numel()
    return total / count


def psnr_of_mean(mse: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Decibels of the MEAN error over images, as NPVA reports and torchmetrics computes.

    The mean of each image's decibels, which most papers report, is another number and never smaller.
    """
    return 10 * (PEAK**2 / mse.mean()).log10()
