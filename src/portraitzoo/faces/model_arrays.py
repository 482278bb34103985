"""The check of face models' arrays, whose files people bring along."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from portraitzoo.errors import ZooError


def check_arrays(
    model: str,
    wanted: str,
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    limits: Mapping[str, int],
) -> None:
    """Find out whether arrays make a model: their shapes fit, indices lie within, and all numbers are finite.

    Args:
        model: what messages call it.
        wanted: what messages say of its version.
        arrays: by name.
        shapes: of those that are no mere lists.
        limits: below which the indices in each array of integers lie.

    Raises:
        ZooError: naming the array that does not fit.
    """
    for name, value in arrays.items():
        array = np.asarray(value)
        shape = shapes.get(name, (array.size,))
        if array.shape != shape:
            raise ZooError(f"the {model}'s {name} is {list(array.shape)}, not {list(shape)}: {wanted}")
        if array.dtype.kind in "iu":
            limit = limits.get(name, 0)
            if array.size and not 0 <= int(array.min()) <= int(array.max()) < limit:
                raise ZooError(f"the {model}'s {name} counts beyond the {limit - 1} that there are")
        elif array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ZooError(f"the {model}'s {name} holds something that is no number")
