"""The tracker of portraits with the weights of the index."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from portraitzoo.faces.portrait_tracker import PortraitTracker
from portraitzoo.hub.loading import load
from portraitzoo.layers.conv_norm import ready_to_measure

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
    tracker = PortraitTracker(**parts)
    ready_to_measure(tracker)
    return tracker


@lru_cache(maxsize=1)
def shared_tracker(device: torch.device | str | None = None) -> PortraitTracker:
    """The tracker of :func:`load_tracker`, kept for the next call: photo and driving video pass through one.

    Raises:
        WeightsUnavailableError: as there.
    """
    return load_tracker(device)
