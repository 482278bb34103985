"""The worst and the best items of an evaluation: found by their values or in feature space, and their pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

from portraitzoo.media.clip import Clip
from portraitzoo.metrics.pairs import TARGET
from portraitzoo.metrics.preparation import rounded
from portraitzoo.metrics.results import Extreme, Gathered

SHOWN = 3  # items at each end
_ROWS_AT_ONCE = 1024
_STRIP_FRAMES = 8
_STRIP_HEIGHT = 112

Picture = Callable[[int], tuple[str, bytes]]
"""Name and JPEG strip of an item of one side."""


def by_value(items: Sequence[tuple[str, float]], gathered: Gathered, higher_is_better: bool) -> list[Extreme]:
    """The items of highest and lowest value, the worst first.

    Args:
        items: name and value of each, in the order in which they were gathered; items without a value may lack.
        gathered: where they come from.
        higher_is_better: which end is the best.
    """
    numbers = iter(gathered.names)
    found = []
    for name, value in items:
        # Names may repeat (windows of one video), but both lists have one order.
        item = next((number for number in numbers if gathered.names[number] == name), None)
        if item is not None:
            found.append((value, item, name))
    found.sort(reverse=not higher_is_better)
    return _ends([Extreme("worst", item, name, value) for value, item, name in found])


def by_neighbours(generated: Gathered, real: Gathered) -> list[Extreme]:
    """The generated items that lie farthest from the real ones and those that lie nearest, the worst first.

    An item's value is the distance in feature space from its rows to the nearest real rows, averaged over its rows;
    with it comes the real item that the nearest of its rows lies at. Empty where a side has no rows.
    """
    if not generated.rows or not real.rows:
        return []
    # In float64: distances by matrix products lose half of the digits, and equal items shall be at 0.
    theirs = torch.from_numpy(real.matrix()).double()
    parts = torch.from_numpy(generated.matrix()).double().split(_ROWS_AT_ONCE)
    nearest, where = (torch.cat(side) for side in zip(*(torch.cdist(p, theirs).min(1) for p in parts), strict=True))
    owners = np.repeat(list(real.rows), [len(rows) for rows in real.rows.values()])
    counts = [len(rows) for rows in generated.rows.values()]
    found = []
    for item, distances, places in zip(generated.rows, nearest.split(counts), where.split(counts), strict=True):
        neighbour = int(owners[int(places[distances.argmin()])])
        found.append((float(distances.mean()), item, neighbour))
    found.sort(key=lambda triple: (-triple[0], triple[1]))
    return _ends(
        [
            Extreme("worst", item, generated.names[item], distance, neighbour, real.names[neighbour])
            for distance, item, neighbour in found
        ]
    )


def _ends(ranked: Sequence[Extreme]) -> list[Extreme]:
    """The first and the last few, no item twice."""
    worst = list(ranked[: min(SHOWN, (len(ranked) + 1) // 2)])
    best = [dataclasses.replace(extreme, end="best") for extreme in ranked[max(len(worst), len(ranked) - SHOWN) :]]
    return worst + best[::-1]


def illustrated(extremes: Sequence[Extreme], generated: Picture, real: Picture | None) -> list[Extreme]:
    """The same with pictures.

    Args:
        extremes: as found.
        generated: gives the name and the picture of an item.
        real: the same of the other side; None if that has no pictures.
    """
    shown = []
    for extreme in extremes:
        name, picture = generated(extreme.item)
        shown.append(dataclasses.replace(extreme, name=name, picture=picture))
        if real is not None and extreme.real_item is not None:
            name, picture = real(extreme.real_item)
            shown[-1] = dataclasses.replace(shown[-1], real_name=name, real_picture=picture)
    return shown


def strip(clip: Clip) -> bytes:
    """A few frames side by side as a JPEG; of a pair, those of the target below."""
    shown = torch.linspace(0, len(clip) - 1, min(len(clip), _STRIP_FRAMES)).round().long()
    height, width = clip.frames.shape[1:3]
    size = (max(1, round(width * _STRIP_HEIGHT / height)), _STRIP_HEIGHT)
    rows = [
        np.concatenate(
            [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in rounded(frames[shown]).numpy()], axis=1
        )
        for frames in (clip.frames, clip.maps.get(TARGET))
        if frames is not None
    ]
    picture = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
