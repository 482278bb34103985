"""From seeds to identities and motions of heads: latent codes, FLAME's shape, expression, jaw, neck and gaze over time.

The authors' programs take FLAME's parameters from fits of FFHQ and VFHQ, which the index has as
``genhead-ffhq-motions``, ``genhead-ffhq-shapes`` and the like. Without them they are drawn from spreads of our own.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_parameters import SIZES, FlameParameters
from portraitzoo.hub.download import fetch_file
from portraitzoo.hub.index import list_models
from portraitzoo.media.arrays import DAMAGE, read_array
from portraitzoo.rendering.cameras import LABEL_SIZE

CLIP_FRAMES = 40
"""Frames of the authors' image program."""
MOTION_SIZE = SIZES["expression"] + SIZES["pose"] + SIZES["eye_pose"]
SHAPE_ROW = LABEL_SIZE + SIZES["shape"]
PROGRAMS = ("turn", "random", "still")
FRAMES_BETWEEN = 12
"""Frames from one random pose of the head to the next."""

_LARGEST_SEED = 2**32 - 1
_EXPRESSIONS, _EXPRESSION_SPREAD = 20, 0.6
_JAW, _NECK, _GAZE = 0.12, (0.1, 0.2, 0.05), (0.08, 0.15, 0.0)  # radians


def latent_code(seed: int, z_dim: int) -> Float[Tensor, "1 z_dim"]:
    """Latent code of a seed, the one that the authors' programs draw: NumPy's Mersenne Twister, in double precision.

    Raises:
        ZooError: if the seed is not a whole number of 0 to 2^32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _LARGEST_SEED:
        raise ZooError(f"a seed of GenHead is a whole number from 0 to {_LARGEST_SEED}, not {seed!r}")
    return torch.from_numpy(np.random.RandomState(seed).randn(1, z_dim)).float()


def load_rows(name_or_path: str | Path, width: int) -> Float[Tensor, "rows {width}"]:
    """Rows of a parameter file.

    Args:
        name_or_path: a file (``.npy``); or ``ffhq`` or ``vfhq`` for the authors' sets, downloaded on first use.
        width: numbers in a row: 325 (camera and shape) or 112 (expression, pose, gaze).

    Raises:
        WeightsUnavailableError: if a set is not on this machine and cannot be fetched.
        ZooError: if it is neither a set nor a file that can be read, has rows of another length or holds something that
            is no number.
    """
    path = parameter_file(name_or_path, "motions" if width == MOTION_SIZE else "shapes")
    try:
        rows = read_array(path)
    except DAMAGE as error:
        raise ZooError(f"{path} is no parameter file (.npy) that can be read: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.ndim < 2 or rows.shape[-1] != width or not rows.size:
        raise ZooError(f"{path} should hold rows of {width} numbers, not {list(getattr(rows, 'shape', ()))}")
    if rows.dtype.kind != "f" or not np.isfinite(rows).all():
        raise ZooError(f"{path} holds NaN, infinite numbers or something else that is no number")
    return torch.from_numpy(rows.astype(np.float32)).flatten(0, -2)


def parameter_file(name_or_path: str | Path, kind: str) -> Path:
    """A file of parameters by its path, or one of the authors' sets by its short name.

    Args:
        name_or_path: a path, or ``ffhq`` or ``vfhq``.
        kind: ``motions`` or ``shapes``.

    Raises:
        WeightsUnavailableError: if a set is not on this machine and cannot be fetched.
        ZooError: for a name that is none of a set.
    """
    path = Path(name_or_path)
    if path.exists() or path.suffix or path.name != str(path):
        return path
    sets = {entry.name: entry for entry in list_models("genhead") if entry.task == "parameters"}
    entry = sets.get(f"genhead-{path.name}-{kind}") or sets.get(path.name)
    if entry is None:
        known = [name.split("-")[1] for name in sets if name.endswith(kind)]
        raise ZooError(f"there are no {kind} {path.name!r}: give a file (.npy) or {' or '.join(known)}")
    return fetch_file(entry)


def identity_shape(
    seed: int, rows: Float[Tensor, "rows 325"] | None = None, *, count: int = 60, spread: float = 0.6
) -> Float[Tensor, "1 300"]:
    """FLAME's shape of a seed: that row of a file (from the start again after the last), or random numbers.

    Args:
        seed: of the identity.
        rows: of cameras and shapes.
        count: how many coefficients are random; the others are 0.
        spread: their standard deviation.
    """
    if rows is not None:
        return rows[seed % len(rows)][None, LABEL_SIZE:]
    shape = torch.zeros(1, SIZES["shape"])
    shape[:, :count] = spread * torch.randn(1, count, generator=torch.Generator().manual_seed(seed))
    return shape


def motion_rows(
    program: str, seed: int, num_frames: int, rows: Float[Tensor, "rows 112"] | None = None
) -> Float[Tensor, "time 112"]:
    """Expression, pose (neck, jaw) and gaze of each frame.

    Args:
        program: ``turn``: the authors' turn of the neck, 0.2 cos + 0.1 about x and 0.4 sin about y over the clip, all
            else from row ``seed``; ``random``: smoothly from one random row to the next; ``still``: row ``seed``.
        seed: of the motion.
        num_frames: frames of the clip.
        rows: of a file; None draws them.

    Raises:
        ZooError: for another program.
    """
    if program not in PROGRAMS:
        raise ZooError(f"unknown motion {program!r}: choose {', '.join(PROGRAMS)}, or give the parameters themselves")
    if program == "random":
        return _random_motion(seed, num_frames, rows)
    row = _drawn_rows(seed, 1)[0] if rows is None else rows[seed % len(rows)]
    motion = row.repeat(num_frames, 1)
    if program == "turn":
        phase = 2 * math.pi * torch.linspace(0, 1, num_frames)
        neck = SIZES["expression"]
        motion[:, neck] = 0.2 * phase.cos() + 0.1
        motion[:, neck + 1] = 0.4 * phase.sin()
    return motion


def with_motion(shape: Float[Tensor, "1 300"], motion: Float[Tensor, "time 112"]) -> FlameParameters:
    """Heads of one identity over time.

    Raises:
        ZooError: if rows are of another length or not finite.
    """
    if motion.ndim != 2 or motion.shape[1] != MOTION_SIZE:
        raise ZooError(f"a motion is [frames, {MOTION_SIZE}] numbers, not {list(motion.shape)}")
    sizes = [SIZES[name] for name in ("expression", "pose", "eye_pose")]
    return FlameParameters(shape.expand(len(motion), -1), *motion.split(sizes, dim=1))


def _random_motion(seed: int, num_frames: int, rows: Tensor | None) -> Float[Tensor, "time 112"]:
    stops = 2 + (num_frames - 1) // FRAMES_BETWEEN
    if rows is None:
        poses = _drawn_rows(seed, stops)
    else:
        poses = rows[torch.randint(len(rows), (stops,), generator=torch.Generator().manual_seed(seed))]
    place = torch.arange(num_frames) / FRAMES_BETWEEN
    share = (1 - torch.cos(math.pi * place.frac())) / 2
    before = place.long()
    return torch.lerp(poses[before], poses[before + 1], share[:, None])


def _drawn_rows(seed: int, count: int) -> Float[Tensor, "rows 112"]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(count, MOTION_SIZE)
    rows[:, :_EXPRESSIONS] = _EXPRESSION_SPREAD * torch.randn(count, _EXPRESSIONS, generator=generator)
    neck = SIZES["expression"]
    rows[:, neck : neck + 3] = torch.randn(count, 3, generator=generator) * torch.tensor(_NECK)
    rows[:, neck + 3] = _JAW * torch.randn(count, generator=generator).abs()
    gaze = torch.randn(count, 3, generator=generator) * torch.tensor(_GAZE)
    rows[:, neck + 6 :] = gaze.repeat(1, 2)  # both eyes look the same way
    return rows
