"""Which frames of a video are a clip: windows, strides and frame rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from portraitzoo.metrics.protocols import Protocol


def window_starts(length: int, place: int, protocol: Protocol) -> Sequence[int]:
    """First frames of the windows that a protocol takes from a video of ``length`` frames, number ``place``.

    Frames are counted at the protocol's rate (see :func:`length_at_rate`). Empty if the video is too short.
    """
    last = length - protocol.span
    if last < 0:
        return ()
    if protocol.windows == "first":
        return (0,)
    if protocol.windows == "random":
        # The draw depends on the file's place alone, so that neither the count nor the workers move it.
        return (int(np.random.default_rng([protocol.window_seed, place]).integers(last + 1)),)
    return range(0, last + 1, protocol.span)


def window_frames(start: int, fps: float, protocol: Protocol) -> list[int]:
    """Numbers of the frames in the file that are the clip from ``start`` on; the nearest ones where rates differ."""
    ratio = _ratio(fps, protocol)
    wanted = range(start, start + protocol.span, protocol.frame_stride)
    return [round_half_up(index * ratio) for index in wanted]


def length_at_rate(num_frames: int, fps: float, protocol: Protocol) -> int:
    """Frames of a video at the protocol's rate: those it has, unless the protocol resamples."""
    ratio = _ratio(fps, protocol)
    # The last frame at the new rate is the last one whose nearest frame of the file exists.
    return math.ceil((num_frames - 0.5) / ratio - 1e-9) if ratio != 1 else num_frames


def round_half_up(value: float) -> int:
    """Nearest whole number; Python's own rounding would go to even numbers and so skip frames unevenly."""
    return math.floor(value + 0.5)


def _ratio(fps: float, protocol: Protocol) -> float:
    """Frames of the file to one frame at the protocol's rate."""
    if not protocol.resample_fps or protocol.fps is None or abs(fps - protocol.fps) <= 1e-3 * protocol.fps:
        return 1.0
    return fps / protocol.fps
