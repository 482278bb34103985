"""Grids of clips: many people, several motions, several camera paths, and a sheet for each path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import write_image
from portraitzoo.media.sheets import contact_sheet
from portraitzoo.methods.bulk import sample_many

GRID_TRAJECTORIES = ("front", "yaw", "yaw-pitch")
SHEET_FRAMES = 8


@dataclass(frozen=True)
class Grid:
    """What a grid wrote.

    Attributes:
        folder: where everything is.
        sheets: one picture for each camera path.
        clips: number of clips.
        written: how many of them are of this run.
    """

    folder: Path
    sheets: tuple[Path, ...]
    clips: int
    written: int


def sample_grid(
    model: nn.Module,
    seeds: Sequence[int],
    out: str | Path,
    *,
    motion_seeds: Sequence[int] = (),
    trajectories: Sequence[str] = GRID_TRAJECTORIES,
    suffix: str = ".mp4",
    on_clip: Callable[[int], None] | None = None,
    **options: Any,
) -> Grid:
    """Draw every seed with every motion along every camera path.

    ``OUT/<trajectory>/seed_<seed>.mp4``, with ``motion_seeds`` in folders ``motion_<seed>`` below, and for each path
    the sheet ``OUT/<trajectory>.png``: a row of frames for each clip. Clips that are there are kept, as
    :func:`~portraitzoo.methods.bulk.sample_many` does.

    Args:
        model: has ``sample(seed=..., motion_seed=..., trajectory=..., **options) -> Clip``.
        seeds: people, each once.
        out: folder, made if need be.
        motion_seeds: motions, each once; without any, each person moves as its own seed says.
        trajectories: names of camera paths that the model knows, each once.
        suffix: of the clips, as in :func:`~portraitzoo.methods.bulk.sample_many`.
        on_clip: called after each clip with the number of clips finished.
        options: further options of :func:`~portraitzoo.methods.bulk.sample_many` and of ``model.sample``.

    Raises:
        ZooError: if there is nothing to draw, or something is asked for twice; and what
            :func:`~portraitzoo.methods.bulk.sample_many` raises.
    """
    for what, values in {"seeds": seeds, "motion seeds": motion_seeds, "trajectories": trajectories}.items():
        if len(set(values)) != len(values):
            raise ZooError(f"the {what} of a grid are each named once")
    if not seeds or not trajectories:
        raise ZooError("a grid needs at least one seed and one trajectory")
    folder, finished, written = Path(out), 0, 0
    sheets = []
    for trajectory in trajectories:
        rows: list[tuple[str, Clip]] = []
        for motion_seed in motion_seeds or (None,):
            place = folder / trajectory
            motion: dict[str, Any] = {}
            if motion_seed is not None:
                place, motion = place / f"motion_{motion_seed:06d}", {"motion_seed": motion_seed}
            summary = sample_many(
                model,
                seeds,
                place,
                suffix=suffix,
                on_clip=_after(finished, on_clip),
                trajectory=trajectory,
                **motion,
                **options,
            )
            finished, written = finished + len(seeds), written + summary.written
            name = "seed {}" if motion_seed is None else f"seed {{}}, motion {motion_seed}"
            rows += [(name.format(seed), Clip.load(place / f"seed_{seed:06d}{suffix}")) for seed in seeds]
        sheets.append(write_image(folder / f"{trajectory}.png", _sheet(rows)))
    return Grid(folder, tuple(sheets), finished, written)


def _after(before: int, on_clip: Callable[[int], None] | None) -> Callable[[int], None] | None:
    return None if on_clip is None else lambda done: on_clip(before + done)


def _sheet(rows: Sequence[tuple[str, Clip]]) -> UInt8[Tensor, "height width 3"]:
    """A row of evenly spaced frames for each clip, the first one labelled."""
    count = min(SHEET_FRAMES, min(len(clip) for _, clip in rows))
    images, labels = [], []
    for label, clip in rows:
        chosen = torch.linspace(0, len(clip) - 1, count).round().long()
        images += list(clip.frames[chosen])
        labels += [label] + [""] * (count - 1)
    return contact_sheet(images, count, labels)
