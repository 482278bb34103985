"""Transformers over images: tokens on a grid, attention, and feed-forward layers that see neighbours.

The parts are those of SegFormer (Xie et al., 2021, section 3): overlapping patches, attention whose keys may be of a
coarser grid, and a feed-forward network with a depthwise convolution instead of position embeddings.
"""

from __future__ import annotations

import math
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.linear import Linear

Grid = tuple[int, int]
"""Rows and columns of tokens, which are stored row by row."""

MANY_PAIRS = 1 << 24
"""From so many pairs of tokens on attention is sooner done in strips."""
STRIP = 512


def as_image(
    tokens: Float[Tensor, "batch tokens channels"], grid: Grid
) -> Float[Tensor, "batch channels rows columns"]:
    """Tokens as an image whose channels are innermost in memory; a view."""
    # Not by way of the transpose: a batch of one would get a stride by which PyTorch takes it for another layout.
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def as_tokens(image: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch tokens channels"]:
    """Pixels as tokens, row by row."""
    return image.flatten(2).mT


def plus(x: Float[Tensor, "*size"], other: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """The sum. Without gradients ``x`` is overwritten, so the caller must own it: fresh memory of that size costs more
    time than the arithmetic."""
    return x + other if torch.is_grad_enabled() else x.add_(other)


class PatchEmbedding(nn.Module):
    """Overlapping patches of 3 x 3 pixels, two pixels apart, to normalised tokens.

    Args:
        channels: channels of the image.
        width: width of a token.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens features"]:
        """Tokens of a grid of half the size."""
        return self.norm(as_tokens(self.conv(image.contiguous(memory_format=torch.channels_last))))


def attend(
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch heads context width"],
    value: Float[Tensor, "batch heads context width"],
) -> Float[Tensor, "batch heads tokens width"]:
    """Scaled dot-product attention (Vaswani et al., 2017, equation 1), by the fastest way there is."""
    if _strips_pay_off(query, key):
        return _attend_in_strips(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def _strips_pay_off(query: Tensor, key: Tensor) -> bool:
    return (
        not torch.is_grad_enabled()
        and query.device.type == "cpu"
        and query.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.compiler.is_compiling()  # compiled code has no matrices of oneDNN's own
        and query.shape[-2] * key.shape[-2] >= MANY_PAIRS
    )


def _attend_in_strips(
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch heads context width"],
    value: Float[Tensor, "batch heads context width"],
) -> Float[Tensor, "batch heads tokens width"]:
    """:func:`attend` on a CPU, by oneDNN, a strip of tokens at a time, whose weights stay in the cache.

    PyTorch leaves matrix products in float32 to MKL unless the matrices are oneDNN's own; see
    :func:`~portraitzoo.layers.linear.linear_by_convolution`.
    """
    batch, heads, tokens, width = query.shape
    # In memory the heads of a token lie side by side, as the next layer wants them.
    found = query.new_empty(batch, tokens, heads, width).transpose(1, 2)
    for row, head in product(range(batch), range(heads)):
        keys, values = (key[row, head] / math.sqrt(width)).to_mkldnn(), value[row, head].T.contiguous().to_mkldnn()
        strips = zip(query[row, head].split(STRIP), found[row, head].split(STRIP), strict=True)
        for asked, out in strips:
            weights = F.linear(asked.contiguous().to_mkldnn(), keys).softmax(-1)
            out.copy_(F.linear(weights, values).to_dense())
    return found


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., 2017, section 3.2).

    Args:
        width: width of a token.
        heads: number of heads.
        reduction: side of the squares of tokens that are merged to one key and value each.
    """

    def __init__(self, width: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.project = Linear(width, width)
        self.merge = nn.Conv2d(width, width, reduction, stride=reduction) if reduction > 1 else None
        self.merge_norm = nn.LayerNorm(width) if reduction > 1 else None

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        grid: Grid,
        context: Float[Tensor, "batch context width"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """What the tokens take from ``context``, or from each other.

        Args:
            tokens: ask.
            grid: their rows and columns, where keys are merged.
            context: answer; None for the tokens themselves.
        """
        source = tokens if context is None else context
        if self.merge is not None and self.merge_norm is not None:
            source = self.merge_norm(as_tokens(self.merge(as_image(source, grid))))
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(source).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.project(attend(query, key, value).transpose(1, 2).flatten(2))


class MixFeedForward(nn.Module):
    """SegFormer's Mix-FFN: wider layer, depthwise 3 x 3 convolution, GELU, back to the width of a token.

    Args:
        width: width of a token.
        ratio: how much wider the hidden layer is.
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.expand = Linear(width, ratio * width)
        self.depthwise = nn.Conv2d(ratio * width, ratio * width, 3, padding=1, groups=ratio * width)
        self.contract = Linear(ratio * width, width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"], grid: Grid) -> Float[Tensor, "batch tokens width"]:
        """Apply the layers."""
        hidden = as_tokens(self.depthwise(as_image(self.expand(tokens), grid)))
        return self.contract(F.gelu(hidden))


class TransformerBlock(nn.Module):
    """Pre-norm block: attention to a context (where the block has it), to the tokens themselves, feed-forward.

    Args:
        width: width of a token.
        heads: heads of each attention.
        mlp_ratio: how much wider the feed-forward network is.
        reduction: side of the squares of tokens that are merged in self-attention.
        cross: whether there is a context.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, *, reduction: int = 1, cross: bool = False) -> None:
        super().__init__()
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross_attention = Attention(width, heads) if cross else None
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, reduction)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MixFeedForward(width, mlp_ratio)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        grid: Grid,
        context: Float[Tensor, "batch context width"] | None = None,
        scale: float | Float[Tensor, "batch 1 1"] = 1.0,
    ) -> Float[Tensor, "batch tokens width"]:
        """Apply the block.

        Args:
            tokens: row by row.
            grid: their rows and columns.
            context: what the cross-attention looks at; None leaves it out.
            scale: factor of what the context contributes.
        """
        if context is not None and self.cross_attention is not None and self.cross_norm is not None:
            tokens = plus(self.cross_attention(self.cross_norm(tokens), grid, context) * scale, tokens)
        tokens = plus(self.attention(self.norm(tokens), grid), tokens)
        return plus(self.mlp(self.mlp_norm(tokens), grid), tokens)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """SegFormer's initial weights: linear layers of deviation 0.02, truncated; convolutions by their outputs."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
