"""Which parts of a network compute in a lower precision on a GPU while it is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

import torch
from torch import nn

LowPrecision = Literal["bf16", "fp16"]

LARGE_BLOCKS = 4
"""Resolutions of a discriminator, from the largest, that may be computed in a lower precision."""


class Judge(Protocol):
    """A discriminator; its blocks are those of falling resolutions."""

    blocks: nn.ModuleDict


def lower_precision(kind: LowPrecision | None, blocks: Iterable[nn.Module], judges: Iterable[Judge]) -> None:
    """Let blocks of a generator, and the large ones of its discriminators, compute in a lower precision on a GPU.

    Args:
        kind: number format; None leaves everything as it is.
        blocks: have the attribute ``low_precision``.
        judges: discriminators, of which the :data:`LARGE_BLOCKS` first blocks follow.

    Raises:
        TypeError: if a block computes in float32 only.
    """
    if kind is None:
        return
    dtype = torch.bfloat16 if kind == "bf16" else torch.float16
    large = [block for judge in judges for block in list(judge.blocks.values())[:LARGE_BLOCKS]]
    for block in (*blocks, *large):
        if not hasattr(block, "low_precision"):
            raise TypeError(f"a {type(block).__name__} computes in float32 only")
        block.low_precision = dtype  # type: ignore[assignment]
