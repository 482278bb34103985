"""The high-resolution network: a map of full size beside ever smaller ones, which keep telling each other what they see
(Wang et al., TPAMI 2020, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.resnet import BasicBlock, Bottleneck, conv

STEM = 64


class HRNet(nn.Module):
    """Features at a fourth of the input's size, from maps of four sizes.

    Args:
        widths: of the blocks of each stage's branches, the largest map first; every stage has one branch more.
        depths: blocks of each stage's branches in one module.
        exchanges: modules of each stage, at whose end the branches are fused; 1 for the first stage, which has a single
            branch (of bottlenecks; the other stages have basic blocks).

    Attributes:
        out_channels: of the features.
    """

    def __init__(
        self,
        widths: Sequence[Sequence[int]] = ((64,), (18, 36), (18, 36, 72), (18, 36, 72, 144)),
        depths: Sequence[Sequence[int]] = ((4,), (4, 4), (4, 4, 4), (4, 4, 4, 4)),
        exchanges: Sequence[int] = (1, 1, 4, 3),
    ) -> None:
        super().__init__()
        self.stem1, self.stem2 = conv(3, STEM, 3, 2), conv(STEM, STEM, 3, 2)
        first = [Bottleneck(STEM, widths[0][0])]
        first += [Bottleneck(first[0].out_channels, widths[0][0]) for _ in range(depths[0][0] - 1)]
        self.first = nn.Sequential(*first)
        self.stages = nn.ModuleList()
        channels: Sequence[int] = (first[0].out_channels,)
        for stage, count in enumerate(exchanges[1:], start=1):
            self.stages.append(Stage(channels, widths[stage], depths[stage], count))
            channels = widths[stage]
        self.out_channels = sum(channels)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels height/4 width/4"]:
        """Maps of all branches, the smaller ones enlarged bilinearly, the largest first."""
        x = F.relu(self.stem2(F.relu(self.stem1(images), inplace=True)), inplace=True)
        maps = [self.first(x)]
        for stage in self.stages:
            maps = stage(maps)
        size = maps[0].shape[-2:]
        enlarged = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in maps[1:]]
        return torch.cat([maps[0], *enlarged], dim=1)


class Stage(nn.Module):
    """One branch more than before, and modules that fuse all branches.

    Args:
        in_channels: of the branches before.
        widths: of the branches.
        depths: blocks of the branches in one module.
        count: modules.
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[int], depths: Sequence[int], count: int) -> None:
        super().__init__()
        self.transitions = nn.ModuleList(
            nn.Identity() if before == width else conv(before, width, 3)
            for before, width in zip(in_channels, widths[:-1], strict=True)
        )
        self.transitions.append(conv(in_channels[-1], widths[-1], 3, 2))
        self.exchanges = nn.ModuleList(Exchange(widths, depths) for _ in range(count))

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Maps of the branches before, the largest first, to those of this stage."""
        entered = [
            x if isinstance(transition, nn.Identity) else F.relu(transition(x), inplace=True)
            for transition, x in zip(self.transitions, [*maps, maps[-1]], strict=True)
        ]
        for exchange in self.exchanges:
            entered = exchange(entered)
        return entered


class Exchange(nn.Module):
    """Blocks on every branch, then every branch is told what the others see: the paper's figure 3.

    Args:
        widths: of the branches, the largest map first.
        depths: blocks of the branches.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(depth)))
            for width, depth in zip(widths, depths, strict=True)
        )
        self.fusions = nn.ModuleList(
            nn.ModuleList(_fusion(widths, target, source) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Maps of the branches to as many of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [F.relu(self._fused(maps, target), inplace=True) for target in range(len(maps))]

    def _fused(self, maps: Sequence[Tensor], target: int) -> Tensor:
        fusions = cast(nn.ModuleList, self.fusions[target])
        total: Tensor | None = None
        # From the smallest map up: what several of them say is added before it is enlarged any further.
        for source in range(len(maps) - 1, target, -1):
            told = fusions[source](maps[source])
            told = told if total is None else told.add_(total)
            total = F.interpolate(told, maps[source - 1].shape[-2:], mode="nearest")
        # The map itself is still told to other branches, so that only what is not a map is added to in place.
        for source in range(target):
            told = fusions[source](maps[source])
            total = told if total is None else total.add_(told)
        return maps[target] if total is None else total.add_(maps[target])


def _fusion(widths: Sequence[int], target: int, source: int) -> nn.Module:
    """From the map of branch ``source`` to what is added to that of ``target``, before it is enlarged."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv(widths[source], widths[target], 1)
    between = [conv(widths[source], widths[source], 3, 2) for _ in range(target - source - 1)]
    return Descent(*between, conv(widths[source], widths[target], 3, 2))


class Descent(nn.Sequential):
    """Strided convolutions that halve a map again and again, with activations between them."""

    def forward(self, x: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """Apply the convolutions."""
        *between, last = self
        for step in between:
            x = F.relu(step(x), inplace=True)
        return last(x)
