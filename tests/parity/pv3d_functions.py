"""One check per group of pv3d/functions.npz. A check compares every ``out`` array of its group."""

from collections.abc import Callable

from reference import Arrays

TOLERANCE = 1e-5
Check = Callable[[Arrays], None]
CHECKS: dict[str, Check] = {}
