"""Raw photos and videos as prepared folders, which Portrait4D and GenHead's data sets are made of.

Each face becomes files of one name, as Portrait4D's authors lay them out: ``align_images`` (512 x 512 pixels),
``2dldmks_align`` (98 landmarks), ``3dldmks_align`` (68), ``bfm_params`` (coefficients of the Basel face model, here as
.npz), ``bfm2flame_params_simplified`` (camera and FLAME parameters), ``motion_feats`` and, if asked for, ``segs``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.faces.parsing import BACKGROUND, BiSeNet
from portraitzoo.faces.portrait_tracker import LOOK_AGAIN, PortraitTracker, TrackedFace
from portraitzoo.files import replacing
from portraitzoo.hub.loading import load
from portraitzoo.media.images import list_images, write_image
from portraitzoo.media.video import find_videos
from portraitzoo.methods.portrait4d.folders import IMAGES, LABELS, LANDMARKS, MOTIONS
from portraitzoo.methods.portrait4d.raw import RawFootage
from portraitzoo.preprocess.prepared_folders import SEGMENTATIONS

CONTOURS, COEFFICIENTS = "2dldmks_align", "bfm_params"
PARSER = "bisenet-celebamask"
"""Entry of the index that tells person from background."""
PROBLEMS = "problems.txt"


@dataclass(frozen=True)
class PreparedPortraits:
    """What came of it.

    Attributes:
        folder: of the prepared files.
        faces: prepared, those of an earlier run included.
        problems: why, for each picture without a face.
    """

    folder: Path
    faces: int
    problems: list[str]

    @property
    def left_out(self) -> int:
        """Number of pictures without a face."""
        return len(self.problems)

    def __str__(self) -> str:
        return str(self.folder)

    def omissions(self) -> str:
        """One line about the pictures that were left out."""
        return f"{self.left_out} pictures left out, see {PROBLEMS}; the first: {self.problems[0]}"


def prepare_portraits(
    footage: str | Path,
    out: str | Path,
    segment: bool = False,
    look_again: int | None = LOOK_AGAIN,
    device: str | None = None,
    tracker: PortraitTracker | None = None,
    parser: BiSeNet | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedPortraits:
    """Find, align and track the largest face of every picture.

    A picture that is already prepared is kept, so that an interrupted run goes on where it stopped; a video that is not
    finished is followed from its beginning. Pictures without a face are left out and listed in ``problems.txt``; they
    are tried again once that file is removed.

    Args:
        footage: a photo, a folder of photos (each searched by itself), a video (its face is followed), or a folder of
            videos, which become folders in ``out``.
        out: folder of the prepared files.
        segment: whether to write masks of the person too.
        look_again: frames of a video after which the whole picture is searched again.
        device: where the networks compute; None for the best one here.
        tracker: the networks; None for the published ones, downloaded on first use.
        parser: tells person from background; None for the published one.
        progress: called with the numbers of finished and of all pictures, after each.

    Raises:
        MediaError: if there is nothing to look at, or no face in any picture.
        WeightsUnavailableError: if a network's weights are not here and cannot be fetched.
        ZooError: if the place cannot be written, or the disk is full.
    """
    root, place = Path(out), Path(footage)
    options: dict[str, Any] = {"tracker": tracker, "device": device, "look_again": look_again}
    if place.is_dir() and not list_images(place):
        jobs = [_Job(RawFootage(path, **options), root / path.stem) for path in find_videos(place)]
    else:
        jobs = [_Job(RawFootage(place, **options), root)]
    mask = (parser or cast(BiSeNet, load(PARSER, device))) if segment else None
    total = sum(len(job.footage) for job in jobs)
    done, problems = 0, list[str]()
    for job in jobs:
        for number, (name, found) in enumerate(job.missing(), start=1):
            if isinstance(found, ZooError):
                job.problems[name] = str(found)
            else:
                write_face(job.folder, name, found, mask)
            if progress:
                progress(done + number, total)
        done += len(job.footage)
        job.note_problems()
        problems += job.problems.values()
    faces = total - len(problems)
    if not faces:
        raise MediaError(f"no face was found in {place}; of the last picture: {problems[-1]}")
    return PreparedPortraits(root, faces, problems)


@dataclass
class _Job:
    """Footage and the folder that it is prepared into."""

    footage: RawFootage
    folder: Path
    problems: dict[str, str] = field(default_factory=dict)

    def missing(self) -> Iterator[tuple[str, TrackedFace | ZooError]]:
        """The faces that are not yet prepared; of a video all, if one frame is not."""
        note = self.folder / PROBLEMS
        if note.is_file():
            lines = (line.partition("\t") for line in note.read_text().splitlines())
            self.problems = {name: why for name, _, why in lines if name in self.footage.names}
        left = [name for name in self.footage.names if name not in self.problems and not self._prepared(name)]
        if self.footage.is_video:
            yield from self.footage.faces() if left else ()
            return
        for name in left:
            yield from self.footage.faces([name])

    def note_problems(self) -> None:
        """List the pictures without a face."""
        if self.problems:
            with replacing(self.folder / PROBLEMS) as temporary:
                temporary.write_text("".join(f"{name}\t{why}\n" for name, why in self.problems.items()))

    def _prepared(self, name: str) -> bool:
        return (self.folder / MOTIONS / f"{name}.npy").is_file()


def write_face(folder: Path, name: str, face: TrackedFace, parser: BiSeNet | None = None) -> None:
    """Write what is known of a face; the motion embedding comes last, and says that the rest is there.

    Args:
        folder: of the prepared files.
        name: of the picture, without suffix.
        face: what is known.
        parser: tells the person from the background, for a mask; None for none.

    Raises:
        ZooError: if the place cannot be written, or the disk is full.
    """
    write_image(folder / IMAGES / f"{name}.png", face.image)
    if parser is not None:
        person = parser.labels(face.image[None].to(next(parser.parameters()).device))[0] != BACKGROUND
        mask = person[..., None].expand(-1, -1, 3).to(torch.uint8).cpu() * 255
        write_image(folder / SEGMENTATIONS / f"{name}.png", mask)
    _write(folder / CONTOURS / f"{name}.npy", face.contour.double().numpy())
    _write(folder / LANDMARKS / f"{name}.npy", face.landmarks.double().numpy())
    numbers = {item.name: getattr(face.coefficients, item.name).cpu().numpy() for item in fields(face.coefficients)}
    with replacing(folder / COEFFICIENTS / f"{name}.npz") as temporary:
        np.savez(temporary, **numbers)
    _write(folder / LABELS["simplified"] / f"{name}.npy", face.label.numpy())
    _write(folder / MOTIONS / f"{name}.npy", face.motion.numpy())


def _write(path: Path, values: np.ndarray) -> None:
    with replacing(path) as temporary:
        np.save(temporary, values)
