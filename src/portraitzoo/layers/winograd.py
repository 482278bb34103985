"""3 x 3 convolution with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3) (Lavin and Gray, 2016).

Four neighbouring outputs of a three-tap filter take six products instead of twelve, and so in both directions: 36
products for a tile of 4 x 4 pixels instead of 144, each a matrix product over the channels of many tiles. The sums
around them are cheap as long as what they work on fits into the cache. Rounding errors are about ten times those of a
direct convolution: two or three millionths of the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TILE = 4
POINTS = TILE + 2
MIN_CHANNELS = 96
"""With fewer channels the sums outweigh the products saved."""
MIN_WIDTH = 32
GROUP = 256
"""Tiles done at a time: enough for the products to run at full speed, few enough for the sums to stay in the cache."""

# Lavin and Gray, appendix: the filter transform of F(4, 3), for the points 0, 1, -1, 2, -2 and infinity.
FILTER_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
ALL_ONES = 1
"""The point whose product counts once in each of the four outputs."""


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
    batch, channels, height, width = x.shape
    out_channels, above = len(weight), pad_rows[0]
    out_height, columns = height + sum(pad_rows) - 2, width // TILE
    rows = -(-out_height // TILE)
    step = min(rows, max(1, GROUP // columns))
    kernels = _kernels(weight)
    size = (batch, out_channels, TILE * rows, width)
    y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    # The same memory for every group of tiles: fresh memory is slow. Channels are innermost everywhere.
    padded = x.new_zeros(TILE * step + 2, width + 2, channels)
    between = x.new_empty(POINTS, step, width + 2, channels)
    points = x.new_empty(POINTS, POINTS, step, columns, channels)
    products = x.new_empty(POINTS, POINTS, step, columns, out_channels)
    restored = x.new_empty(POINTS, step, columns, TILE, out_channels)
    for image, result in zip(x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1), strict=True):
        for start in range(0, rows, step):
            first = min(start, rows - step)  # the last group is a whole one as well
            # Output row r sees rows r - above to r - above + 2 of the input.
            _fill(padded[:, 1:-1], image, TILE * first - above)
            _into_points(padded.unfold(0, POINTS, TILE).unbind(-1), between)
            _into_points(between.unfold(2, POINTS, TILE).unbind(-1), points)
            torch.bmm(points.view(POINTS**2, -1, channels), kernels, out=products.view(POINTS**2, -1, out_channels))
            if bias is not None:
                products[ALL_ONES, ALL_ONES].add_(bias)
            _from_points(products, restored.unbind(3))
            strip = result[TILE * first : TILE * (first + step)]
            _from_points(restored.flatten(2, 3), strip.unflatten(0, (step, TILE)).unbind(1))
    return y[:, :, :out_height]


def _kernels(weight: Float[Tensor, "out_channels in_channels 3 3"]) -> Float[Tensor, "36 in_channels out_channels"]:
    """Kernels at the points of the columns and, within each, of the rows."""
    transform = torch.tensor(FILTER_TRANSFORM, dtype=weight.dtype)
    taps = weight.permute(3, 2, 1, 0).flatten(0, 1)
    return (torch.kron(transform, transform) @ taps.flatten(1)).unflatten(1, taps.shape[1:])


def _fill(
    padded: Float[Tensor, "rows width channels"], image: Float[Tensor, "height width channels"], top: int
) -> None:
    """Write rows ``top`` and following of the image, zeros where there are none."""
    first, last = max(top, 0), min(top + len(padded), len(image))
    padded[: first - top] = 0
    padded[first - top : last - top] = image[first:last]
    padded[last - top :] = 0


def _into_points(d: Sequence[Float[Tensor, "*size"]], out: Float[Tensor, "6 ..."]) -> None:
    """Input transform: what six neighbours are at the six points. Sums that several need are computed once."""
    o0, o1, o2, o3, o4, o5 = out
    torch.sub(d[4], d[2], out=o3)
    torch.sub(d[3], d[1], out=o4)
    torch.add(o3, torch.sub(d[0], d[2], out=o0), alpha=4, out=o0)
    torch.sub(d[5], d[3], out=o5).sub_(o4, alpha=4)
    torch.sub(d[4], d[2], alpha=4, out=o1)
    torch.sub(d[3], d[1], alpha=4, out=o2)
    _sum_and_difference(o1, o2, 1)
    _sum_and_difference(o3, o4, 2)


def _from_points(m: Float[Tensor, "6 ..."], y: Sequence[Float[Tensor, "*size"]]) -> None:
    """Output transform: four neighbours of the result from its values at the six points, which are overwritten."""
    m0, m1, m2, m3, m4, m5 = m
    _sum_and_difference(m1, m2, 1)
    _sum_and_difference(m3, m4, 1)
    torch.add(m0, m1, out=y[0]).add_(m3)
    torch.add(m2, m4, alpha=2, out=y[1])
    torch.add(m1, m3, alpha=4, out=y[2])
    torch.add(m2, m4, alpha=8, out=y[3]).add_(m5)


def _sum_and_difference(a: Float[Tensor, "*size"], b: Float[Tensor, "*size"], factor: int) -> None:
    """Turn a and b to a + factor * b and a - factor * b, without further memory."""
    a.add_(b, alpha=factor)
    torch.sub(a, b, alpha=2 * factor, out=b)
