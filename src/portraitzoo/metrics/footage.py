"""Where real and generated videos and images lie: folders, archives, LMDBs; all opened one at a time."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Protocol

from portraitzoo.errors import MediaError
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import IMAGE_SUFFIXES, list_images, natural_order
from portraitzoo.media.records import RecordFile
from portraitzoo.media.video import VideoReader, find_videos
from portraitzoo.media.video_files import VIDEO_SUFFIXES
from portraitzoo.metrics.reconstruction import SUFFIX, parameter_file
from portraitzoo.metrics.reels import ClipReel, ImageReel, RecordReel, Reel, VideoReel
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera

MEMBER_LIMIT = 8 << 30
"""Bytes to which one file of an archive may unpack: more is an accident or an attack."""


class Footage(Protocol):
    """Videos, or one set of images, in one place; it can be sent to other processes.

    Attributes:
        names: what each video is called; of a set of images, what each image is called.
        stills: whether it is a set of images: then reel 0 holds all of them.
    """

    names: list[str]
    stills: bool

    def open(self, place: int) -> AbstractContextManager[Reel]:
        """Video number ``place``.

        Raises:
            MediaError: if it cannot be opened.
        """

    def file(self, place: int, number: int) -> Path | None:
        """File or folder of a video, or file of image ``number`` of a set; None where it has none of its own."""

    def digest(self, workers: int) -> str:
        """Hexadecimal digest of all content and names."""

    def camera_tracks(self) -> list[Camera]:
        """Cameras of those videos that have them."""


class FolderFootage:
    """Videos (files, frame folders, ``.npz`` clips) in a folder, one such file, or a folder of images.

    Where a folder holds none of these, those of the folders in it are taken (classes: ``class/video/frame.png``).
    VoxCeleb as PV3D lays it out (``recrop_faces``, ``smoothed_camera2world``) is known too.

    Raises:
        MediaError: if there is nothing of the kind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        recropped = self.path / "recrop_faces"
        root = recropped if recropped.is_dir() else self.path
        self._paths = _clip_files(root) or _videos_below(root)
        self._images = list_images(self.path) if self._paths == [self.path] and self.path.is_dir() else []
        if self.path.is_file() and self.path.suffix.lower() in IMAGE_SUFFIXES:
            self._images = [self.path]
        self.stills = bool(self._images)
        grouped = not self._images and any(path.parent not in (root, root.parent) for path in self._paths)
        self.names = [
            f"{path.parent.name}/{path.name}" if grouped else path.name for path in self._images or self._paths
        ]

    @contextmanager
    def open(self, place: int) -> Iterator[Reel]:
        """See :class:`Footage`."""
        if self._images:
            yield ImageReel(self.names, self._bytes)
        elif self._paths[place].suffix == ".npz":
            yield ClipReel(Clip.load(self._paths[place]))
        else:
            with VideoReader(self._paths[place]) as reader:
                yield VideoReel(self._paths[place], reader)

    def file(self, place: int, number: int) -> Path:
        """See :class:`Footage`."""
        return self._images[number] if self._images else self._paths[place]

    def digest(self, workers: int) -> str:
        """Digest of names, sizes and bytes of the files, and of the numbers beside them."""
        files = [path for video in self._paths for path in ([video] if video.is_file() else folder_files(video))]
        numbers = [path for video in self._paths if (path := parameter_file(video)).is_file()]
        digests = [files_digest(files, self.path, workers), *map(file_digest, numbers)]
        return digests[0] if not numbers else hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()

    def camera_tracks(self) -> list[Camera]:
        """Cameras of those videos that have a camera file: ``NAME.json`` beside, or in ``smoothed_camera2world``.

        Raises:
            MediaError: if a camera file is damaged.
        """
        tracks = []
        for video in self._paths:
            homes = (video.parent, video.parent.parent / "smoothed_camera2world")
            files = [home / f"{video.stem}.json" for home in homes]
            tracks += [load_cameras(file) for file in files if file.is_file()][:1]
        return tracks

    def _bytes(self, number: int) -> bytes:
        try:
            return self._images[number].read_bytes()
        except OSError as error:
            raise MediaError(f"cannot read the image {self._images[number]}: {error.strerror}") from error


class ZipFootage:
    """A zip of video files, of frame folders, or of images; members are read one at a time.

    Raises:
        MediaError: if it is no zip, or nothing of the kind is in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [info.filename for info in archive.infolist() if not info.is_dir()]
        except (OSError, zipfile.BadZipFile) as error:
            raise MediaError(f"{self.path} is no zip archive, or it is damaged: copy it again") from error
        seen = [PurePosixPath(name) for name in members if not _hidden(PurePosixPath(name))]
        self._videos = sorted((path for path in seen if path.suffix.lower() in VIDEO_SUFFIXES), key=_order)
        images = sorted((path for path in seen if path.suffix.lower() in IMAGE_SUFFIXES), key=_order)
        self._folders = [list(group) for _, group in groupby(images, lambda path: path.parent)]
        if not self._videos and not self._folders:
            raise MediaError(f"{self.path} holds neither videos nor images")
        self.stills = not self._videos and len(self._folders) == 1
        reels = self._videos or [folder[0].parent for folder in self._folders]
        self.names = [path.name for path in (self._folders[0] if self.stills else reels)]

    @contextmanager
    def open(self, place: int) -> Iterator[Reel]:
        """See :class:`Footage`."""
        if self._videos:
            with tempfile.TemporaryDirectory() as folder:
                # Decoders seek, which in a compressed member would start over each time.
                video = Path(folder) / self._videos[place].name
                video.write_bytes(self._read(self._videos[place]))
                with VideoReader(video) as reader:
                    yield VideoReel(video, reader)
            return
        images = self._folders[place]
        yield ImageReel([f"{self.path}: {image}" for image in images], lambda number: self._read(images[number]))

    def file(self, place: int, number: int) -> None:
        """None: members of an archive are no files."""

    def digest(self, workers: int) -> str:
        """Digest of the archive's bytes."""
        return file_digest(self.path)

    def camera_tracks(self) -> list[Camera]:
        """None: an archive holds no camera files that are looked for."""
        return []

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        """The archive, opened once: its table of contents may be long. Threads may share it."""
        return zipfile.ZipFile(self.path)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_archive"}

    def _read(self, member: PurePosixPath) -> bytes:
        try:
            archive = self._archive
            if archive.getinfo(str(member)).file_size > MEMBER_LIMIT:
                raise MediaError(f"{member} in {self.path} would unpack to more than {MEMBER_LIMIT >> 30} GiB")
            return archive.read(str(member))
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
            raise MediaError(f"{member} in {self.path} cannot be unpacked ({error}): pack it again") from error


class RecordFootage:
    """An LMDB of Portrait4D or GenHead: images (FFHQ) or clips (VFHQ).

    Raises:
        MediaError: if it is another kind of LMDB, or damaged.
        ZooError: if the package lmdb is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self._records = RecordFile(path)
        self.names = [f"record {number}" for number in range(len(self._records))]
        self.stills = not self._records.moving

    @contextmanager
    def open(self, place: int) -> Iterator[Reel]:
        """See :class:`Footage`."""
        yield RecordReel(self._records) if self.stills else ClipReel(Clip(self._records.frames(place)))

    def file(self, place: int, number: int) -> None:
        """None: records are no files."""

    def digest(self, workers: int) -> str:
        """Digest of the file's bytes."""
        return file_digest(self._records.file)

    def camera_tracks(self) -> list[Camera]:
        """None: cameras of the labels are a family's own affair."""
        return []


def footage_at(path: Path) -> Footage:
    """What a path holds.

    Raises:
        MediaError: if it is nothing that can be read.
    """
    if RecordFile.matches(path):
        return RecordFootage(path)
    if path.suffix.lower() == ".zip" and path.is_file():
        return ZipFootage(path)
    return FolderFootage(path)


def folder_files(folder: Path) -> list[Path]:
    """Files directly in a folder, hidden ones left out, in order."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def files_digest(files: Sequence[Path], root: Path, workers: int) -> str:
    """Digest of names relative to ``root``, sizes and bytes; a file that is the root itself has no name."""
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        contents = list(pool.map(file_digest, files))
    state = hashlib.blake2b(digest_size=16)
    for path, content in zip(files, contents, strict=True):
        state.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return state.hexdigest()


def file_digest(path: Path) -> str:
    """Size and digest of one file."""
    with path.open("rb") as file:
        return f"{path.stat().st_size} {hashlib.file_digest(file, 'blake2b').hexdigest()}"


def _clip_files(root: Path) -> list[Path]:
    """``.npz`` clips directly in a folder, or that one file."""
    if root.is_file():
        return [root] if root.suffix == ".npz" else []
    inside = root.glob("*.npz") if root.is_dir() else ()
    clips = (path for path in inside if not path.name.startswith(".") and not path.name.endswith(SUFFIX))
    return sorted(clips, key=natural_order)


def _hidden(path: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _order(path: PurePosixPath) -> list[list[tuple[bool, int, str]]]:
    return [natural_order(Path(part)) for part in path.parts]


def _videos_below(root: Path) -> list[Path]:
    """Videos of a folder or, where it holds none, of the folders in it.

    Raises:
        MediaError: if there are none in either.
    """
    try:
        return find_videos(root)
    except MediaError:
        inside = sorted((path for path in root.iterdir() if path.is_dir()), key=natural_order) if root.is_dir() else []
        found = []
        for folder in inside:
            with suppress(MediaError):
                found += [path for path in find_videos(folder) if path != folder]
        if not found:
            raise
        return found
