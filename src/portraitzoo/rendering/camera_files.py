"""Cameras of a clip in a JSON file: one label of 25 numbers for every frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.files import replacing
from portraitzoo.rendering.cameras import LABEL_SIZE, Camera

_LARGEST = float(np.finfo(np.float32).max)


def load_cameras(path: str | Path, num_frames: int | None = None) -> Camera:
    """Read the cameras of a clip.

    The file holds a list with one entry for each frame, in order: 25 numbers (see :meth:`Camera.label`), or a pair of
    the frame's name and 25 numbers (PV3D's ``smoothed_camera2world``). Or it holds an object with such a list under
    ``cameras`` (``clip.json`` of :meth:`portraitzoo.media.clip.Clip.save`), or with ``cam2world`` [time, 4, 4] and
    ``intrinsics`` [time, 3, 3] or [3, 3].

    Args:
        path: a .json file.
        num_frames: length of the clip; further cameras are left out. None takes all.

    Returns:
        Cameras of batch shape [time].

    Raises:
        MediaError: if the file is absent or no JSON, an entry has not 25 finite numbers, or there are fewer cameras
            than frames; the message names file and entry.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise MediaError(f"cannot read the camera file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise MediaError(f"the camera file {path} is no JSON: {_shortened(error)}; write it again") from error
    if isinstance(content, dict) and "cameras" not in content:
        camera = _from_matrices(path, content)
    else:
        entries = content["cameras"] if isinstance(content, dict) else content
        if not isinstance(entries, list) or not entries:
            raise MediaError(f"the camera file {path} must hold a list with one camera of 25 numbers for each frame")
        camera = Camera.from_label(torch.tensor([_label(path, i, entry) for i, entry in enumerate(entries)]))
    if num_frames is None:
        return camera
    if len(camera) < num_frames:
        raise MediaError(
            f"the camera file {path} has {len(camera)} cameras for {num_frames} frames: add the missing ones"
        )
    return camera[:num_frames]


def save_cameras(path: str | Path, camera: Camera, names: Sequence[str] | None = None) -> Path:
    """Write the cameras of a clip; :func:`load_cameras` gives them back exactly.

    Args:
        path: a .json file.
        camera: batch shape [time].
        names: names of the frames, for PV3D's ``smoothed_camera2world`` layout.

    Raises:
        ZooError: if the camera has no time axis, the names are not as many, or the place cannot be written.
    """
    if len(camera.shape) != 1 or (names is not None and len(names) != len(camera)):
        found = "" if names is None else f" and {len(names)} names"
        raise ZooError(f"a camera file needs cameras [time] and as many names, not {list(camera.shape)}{found}")
    labels = camera.label().to(torch.float32).tolist()
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(labels if names is None else list(zip(names, labels, strict=True))))
    return Path(path)


def draw_cameras(tracks: Sequence[Camera], num_frames: int, seed: int) -> Camera:
    """Cameras of consecutive frames of a real clip, as PV3D's evaluation films its samples: track and start by chance.

    Args:
        tracks: cameras of real clips, each of batch shape [time]; shorter ones than ``num_frames`` are passed over.
        num_frames: cameras wanted.
        seed: decides the draw; neither the global generator nor other seeds play a part.

    Raises:
        ZooError: if no track is long enough.
    """
    usable = [track for track in tracks if len(track) >= num_frames]
    if not usable:
        raise ZooError(f"none of the {len(tracks)} camera tracks is as long as a clip of {num_frames} frames")
    draw = np.random.default_rng(seed)
    track = usable[int(draw.integers(len(usable)))]
    start = int(draw.integers(len(track) - num_frames + 1))
    return track[start : start + num_frames]


def _label(path: Path, index: int, entry: object) -> list[float]:
    named = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], list)
    numbers = entry[1] if named else entry  # type: ignore[index]
    if not isinstance(numbers, list) or not all(
        isinstance(n, int | float) and not isinstance(n, bool) for n in numbers
    ):
        raise MediaError(f"the camera file {path}: entry {index} is no list of {LABEL_SIZE} numbers")
    if len(numbers) != LABEL_SIZE:
        raise MediaError(
            f"the camera file {path}: entry {index} has {len(numbers)} numbers instead of {LABEL_SIZE} "
            "(cam2world 4x4, then intrinsics 3x3)"
        )
    if not all(abs(number) <= _LARGEST for number in numbers):
        raise MediaError(f"the camera file {path}: entry {index} holds NaN or infinite numbers")
    return numbers


def _from_matrices(path: Path, content: dict[str, object]) -> Camera:
    try:
        cam2world = torch.tensor(content["cam2world"], dtype=torch.float32)
        intrinsics = torch.tensor(content["intrinsics"], dtype=torch.float32)
        return Camera(cam2world, intrinsics.expand(len(cam2world), 3, 3))
    except (KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise MediaError(
            f"the camera file {path} needs cam2world [time, 4, 4] and intrinsics [time, 3, 3]: {_shortened(error)}"
        ) from error
    except ZooError as error:
        raise MediaError(f"the camera file {path}: {error}") from error


def _shortened(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
