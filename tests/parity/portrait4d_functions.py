"""Comparisons of Portrait4D's functions with the reference, one for every group of arrays."""

import re
from collections.abc import Callable

from reference import Arrays

FUNCTIONS: dict[str, Callable[[Arrays], None]] = {}


def image_sizes(meaning: str) -> tuple[int, int]:
    """Sides of finished and raw images, as the notes say them: ``image_sr [64], image [16]``."""
    found = re.search(r"image_sr \[(\d+)\], image \[(\d+)\]", meaning)
    assert found, f"the notes do not tell the sizes of the images: {meaning}"
    return int(found[1]), int(found[2])
