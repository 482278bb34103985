"""FLAME fitted to the landmarks of prepared faces: the step from ``simplified`` to ``fitted`` head parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.landmark_fit import FROM_SCRATCH, FitSettings, LandmarkFit
from portraitzoo.faces.landmark_loss import fit_target
from portraitzoo.files import replacing
from portraitzoo.hub.loading import best_device
from portraitzoo.media.images import is_visible, natural_order
from portraitzoo.methods.genhead.training import HeadSource, load_head
from portraitzoo.methods.portrait4d.folders import LABELS, LANDMARKS, PreparedFolder
from portraitzoo.methods.portrait4d.prepared import CAMERA_SIZE, FRAME_LABEL
from portraitzoo.preprocess.portraits import CONTOURS


def fit_portraits(
    data: str | Path,
    head: HeadSource = "flame",
    one_person: bool = False,
    batch_size: int = 100,
    placing_steps: int | None = None,
    posing_steps: int | None = None,
    fitting_steps: int | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``flame_optim_params`` of every face that has landmarks and simplified parameters.

    Faces that are already fitted are kept; of one person's folder all are fitted anew if one is missing.

    Args:
        data: prepared folder, or a folder of them.
        head: ``flame`` (its files are the user's, see ``zoo doctor``), which begins with the simplified parameters; or
            a free head in its place, of whose coefficients they say nothing, so that it begins with none.
        one_person: whether the faces of a folder are of one clip: they then share their shape, and go through the
            optimiser together.
        batch_size: faces that go through it together otherwise.
        placing_steps: in which only the head's place changes; None for 1500 (500 of a free head).
        posing_steps: in which it turns and opens its jaw too; None for 0, as the authors have it (1500).
        fitting_steps: in which shape, expression and gaze change; None for 3000 (500).
        device: where to compute; None for the best one here.
        progress: called with the numbers of finished and of all faces, after each batch.

    Returns:
        The folder.

    Raises:
        MediaError: if there are no such faces, or a file of one is damaged.
        ZooError: if FLAME's files are missing, or a number is out of its range.
    """
    root = Path(data)
    if batch_size < 1:
        raise ZooError(f"batch-size must be at least 1, not {batch_size}")
    asked = {"placing_steps": placing_steps, "posing_steps": posing_steps, "fitting_steps": fitting_steps}
    usual = FitSettings() if head == "flame" else FROM_SCRATCH
    settings = replace(usual, **{name: steps for name, steps in asked.items() if steps is not None})
    folders = _folders(root)
    fit = LandmarkFit.of_head(load_head(head).to(device or best_device()))
    batches = [(folder, names) for folder in folders for names in _batches(folder, one_person, batch_size)]
    total = sum(len(_names(folder)) for folder in folders)
    done = total - sum(len(names) for _, names in batches)
    for folder, names in batches:
        faces = PreparedFolder(folder, parameters="simplified")
        labels = [faces.numbers(LABELS["simplified"], name, "head parameters", (FRAME_LABEL,)) for name in names]
        contours = [faces.numbers(CONTOURS, name, "98 landmarks", (98, 2)) for name in names]
        landmarks = [faces.numbers(LANDMARKS, name, "68 landmarks", (68, -1))[:, :2] for name in names]
        start = FlameParameters.from_label(torch.stack(labels)[:, CAMERA_SIZE:])
        start = start if head == "flame" else FlameParameters.zeros(len(names))
        target = fit_target(torch.stack(contours), torch.stack(landmarks))
        found = fit.fit(start, target, one_person=one_person, settings=settings)
        for name, label in zip(names, found.labels().cpu().numpy().astype(np.float32), strict=True):
            with replacing(folder / LABELS["fitted"] / f"{name}.npy") as temporary:
                np.save(temporary, label)
        done += len(names)
        if progress:
            progress(done, total)
    return root


def _folders(root: Path) -> list[Path]:
    """The folders with faces to fit to."""
    if not root.is_dir():
        raise MediaError(f"there is no folder {root}")
    below = sorted((path for path in root.iterdir() if path.is_dir() and is_visible(path)), key=natural_order)
    found = [folder for folder in (root, *below) if (folder / CONTOURS).is_dir() and _names(folder)]
    if not found:
        raise MediaError(
            f"{root} holds no faces to fit a head to: expected {CONTOURS}, {LANDMARKS} and {LABELS['simplified']}, "
            "which `zoo preprocess portraits` writes"
        )
    return found


def _names(folder: Path) -> list[str]:
    return [path.stem for path in sorted((folder / LABELS["simplified"]).glob("*.npy"), key=natural_order)]


def _batches(folder: Path, one_person: bool, size: int) -> list[list[str]]:
    """Names of the faces that are yet to be fitted, those together that go through the optimiser together."""
    names = _names(folder)
    left = [name for name in names if not (folder / LABELS["fitted"] / f"{name}.npy").is_file()]
    if one_person:
        return [names] if left else []
    return [left[first : first + size] for first in range(0, len(left), size)]
