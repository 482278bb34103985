"""The tracker of portraits with the weights of the index."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from portraitzoo.faces.portrait_tracker import PortraitTracker
from portraitzoo.hub.loading import load
from portraitzoo.layers.conv_norm import fold_batch_norms

ENTRIES = {
    "detector": "retinaface-resnet50",
    "contour": "h3r-hrnet18-wflw98",
    "landmarks": "fan3d-heatmap",
    "regressor": "deep3d-resnet50",
    "mapper": "bfm-to-flame",
    "motion": "pdfgc-motion",
}
"""Part of the tracker -> entry of the index."""


def load_tracker(device: torch.device | str | None = None) -> PortraitTracker:
    """The tracker that the released Portrait4D networks were prepared with, ready to use.

    Args:
        device: where it computes; None for the best one here.

    Raises:
        WeightsUnavailableError: naming the entry whose weights are not here and cannot be fetched.
    """
    parts: dict[str, Any] = {part: load(entry, device) for part, entry in ENTRIES.items()}
    return ready(PortraitTracker(**parts))


def ready(tracker: PortraitTracker) -> PortraitTracker:
    """A tracker made fast, in place: norms folded into convolutions, channels innermost; it is not to be saved then."""
    fold_batch_norms(tracker.eval().requires_grad_(False))
    for layer in tracker.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    return tracker


@lru_cache(maxsize=1)
def shared_tracker(device: torch.device | str | None = None) -> PortraitTracker:
    """The tracker of :func:`load_tracker`, kept for the next call: photo and driving video pass through one.

    Raises:
        WeightsUnavailableError: as there.
    """
    return load_tracker(device)
