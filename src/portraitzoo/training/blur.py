"""The Gaussian blur that hides fine detail from the discriminators early in training."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d


def blur(
    image: Float[Tensor, "batch channels height width"], sigma: float
) -> Float[Tensor, "batch channels height width"]:
    """Separable blur: taps ``2 ** -(k / sigma)^2`` up to ``floor(3 sigma)``, normalised; zeros outside the image.

    Args:
        image: any range; the borders darken towards 0.
        sigma: width in pixels; below 1/3 the image comes back as it is.
    """
    reach = math.floor(3 * sigma)
    if reach < 1:
        return image
    offsets = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
    taps = torch.exp2(-((offsets / sigma) ** 2))
    taps = (taps / taps.sum()).to(image.dtype)
    channels = image.shape[1]
    rows = taps.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    image = conv2d(image, rows, padding=(reach, 0), groups=channels)
    return conv2d(image, columns, padding=(0, reach), groups=channels)
