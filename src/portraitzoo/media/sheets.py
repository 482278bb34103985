"""Contact sheets: many pictures on one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.errors import MediaError


def contact_sheet(
    images: Sequence[UInt8[Tensor, "?height ?width 3"]] | UInt8[Tensor, "count height width 3"],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    gap: int = 2,
) -> UInt8[Tensor, "sheet_height sheet_width 3"]:
    """Pictures in rows from left to right, top to bottom, on white.

    Args:
        images: RGB pictures; cells are as large as the largest, smaller ones are centred.
        columns: pictures in a row; without it the sheet is about square.
        labels: one line of text under each picture, shrunk to fit.
        gap: white pixels between pictures.

    Raises:
        MediaError: without pictures, with fewer than one column, or with another number of labels.
    """
    count = len(images)
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if count == 0 or columns < 1:
        raise MediaError(f"a contact sheet needs at least 1 picture and 1 column, not {count} and {columns}")
    if labels is not None and len(labels) != count:
        raise MediaError(f"a contact sheet needs one label for each picture: {len(labels)} labels for {count} pictures")
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    strip = max(12, height // 10) if labels is not None else 0
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + strip + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = row * (height + strip + gap), column * (width + gap)
        inner_top, inner_left = top + (height - image.shape[0]) // 2, left + (width - image.shape[1]) // 2
        sheet[inner_top : inner_top + image.shape[0], inner_left : inner_left + image.shape[1]] = image.cpu().numpy()
        if labels is not None:
            sheet[top + height : top + height + strip, left : left + width] = _caption(labels[index], strip, width)
    return torch.from_numpy(sheet)


def _caption(text: str, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    font = cv2.FONT_HERSHEY_SIMPLEX
    (unit_width, unit_height), baseline = cv2.getTextSize(text, font, 1.0, 1)
    scale = min(0.8 * height / max(unit_height + baseline, 1), 0.95 * width / max(unit_width, 1))
    strip = np.full((height, width, 3), 255, dtype=np.uint8)
    origin = (int((width - scale * unit_width) / 2), int((height + scale * (unit_height - baseline)) / 2))
    return cv2.putText(strip, text, origin, font, scale, (0, 0, 0), 1, cv2.LINE_AA)
