"""3 x 3 convolution with half the multiplications: Winograd's F(4, 3) along the width (Lavin and Gray, 2016).

Four neighbouring outputs of a three-tap filter take six products instead of twelve. Here the "products" are
convolutions with 3 x 1 kernels over a quarter of the columns, which PyTorch runs at full speed; the sums around them
are cheap as long as the maps fit into the cache. Rounding errors are about twice those of a direct convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TILE = 4
MIN_CHANNELS = 96
"""With fewer channels the sums outweigh the products saved."""
MIN_WIDTH = 32
TILE_NUMBERS = 1 << 21
"""Rows are done in groups of about this many numbers, so that the sums stay in the cache."""

# Lavin and Gray, appendix: the filter transform of F(4, 3), for the points 0, 1, -1, 2, -2 and infinity.
FILTER_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def pays_off(x: Float[Tensor, "batch in_channels height width"], weight: Float[Tensor, "out in_channels k k"]) -> bool:
    """Whether :func:`conv3x3` is usable (no gradients, float32, whole tiles) and, on this kind of device, faster."""
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and weight.shape[-2:] == (3, 3)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and x.shape[-1] >= MIN_WIDTH
        and x.shape[-1] % TILE == 0
    )


def conv3x3(
    x: Float[Tensor, "batch in_channels height width"],
    weight: Float[Tensor, "out_channels in_channels 3 3"],
    bias: Float[Tensor, " out_channels"] | None = None,
    *,
    pad_rows: tuple[int, int] = (1, 1),
) -> Float[Tensor, "batch out_channels out_height width"]:
    """Correlation with zero padding: one column on either side, ``pad_rows`` rows above and below.

    Args:
        x: input without gradients; the width is a multiple of 4.
        weight: kernels.
        bias: added per output channel.
        pad_rows: rows of zeros above and below.
    """
    transform = torch.tensor(FILTER_TRANSFORM, dtype=x.dtype)
    # Input channels innermost, the layout in which the convolutions want their weights.
    kernels = torch.einsum("pk,oiyk->poyi", transform, weight).contiguous().transpose(2, 3).unsqueeze(-1)
    above, below = pad_rows
    batch, channels, height, width = x.shape
    out_height = height + above + below - 2
    y = torch.empty((batch, len(weight), out_height, width), dtype=x.dtype, memory_format=torch.channels_last)
    step = max(1, TILE_NUMBERS // (width * channels))
    for first in range(0, out_height, step):
        last = min(first + step, out_height)
        # Output row r sees rows r - above to r - above + 2 of the input.
        padded = _padded_rows(x, first - above, last - above + 2)
        _convolve_rows(padded, kernels, y[:, :, first:last])
    return y if bias is None else y.add_(bias[:, None, None])


def _padded_rows(
    x: Float[Tensor, "batch channels height width"], top: int, bottom: int
) -> Float[Tensor, "batch channels rows width+2"]:
    """Rows ``top`` to ``bottom`` with zeros around the image. (PyTorch's own padding writes everything twice.)"""
    batch, channels, height, width = x.shape
    size = (batch, channels, bottom - top, width + 2)
    padded = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    first, last = max(top, 0), min(bottom, height)
    padded[:, :, first - top : last - top, 1:-1] = x[:, :, first:last]
    padded[..., 0] = 0
    padded[..., -1] = 0
    padded[:, :, : first - top] = 0
    padded[:, :, last - top :] = 0
    return padded


def _convolve_rows(
    x: Float[Tensor, "batch in_channels rows+2 width+2"],
    kernels: Float[Tensor, "6 out_channels in_channels 3 1"],
    y: Float[Tensor, "batch out_channels rows width"],
) -> None:
    """Write the convolution of padded rows to ``y``."""
    width = y.shape[-1]
    d0, d1, d2, d3, d4, d5 = (x[..., place : place + width - TILE + 1 : TILE] for place in range(TILE + 2))
    # Terms that several rows of the input and output transforms share are summed once, in place where possible.
    u, v = d4 - d2, d3 - d1
    a, b = torch.sub(d4, d2, alpha=4), torch.sub(d3, d1, alpha=4)
    inputs = (
        torch.add(u, d0 - d2, alpha=4),
        a + b,
        a.sub_(b),
        torch.add(u, v, alpha=2),
        u.sub_(v, alpha=2),
        (d5 - d3).sub_(v, alpha=4),
    )
    m0, m1, m2, m3, m4, m5 = (F.conv2d(part, kernel) for part, kernel in zip(inputs, kernels, strict=True))
    odd, odd2 = m1 - m2, m3 - m4
    even, even2 = m1.add_(m2), m3.add_(m4)
    outputs = [y[..., place::TILE] for place in range(TILE)]
    torch.add(m0.add_(even), even2, out=outputs[0])
    torch.add(odd, odd2, alpha=2, out=outputs[1])
    torch.add(even, even2, alpha=4, out=outputs[2])
    torch.add(odd.add_(odd2, alpha=8), m5, out=outputs[3])
