"""Many videos as frames in one uncompressed zip file, made for drawing frames at random.

A zip file is read by every tool there is, holds the very PNG or JPEG files that a folder would, and its directory at
the end tells where each one begins. Stored without a second compression, a frame is one read at a known place; a folder
of as many small files has to look up, open and close each, which network file systems do slowly. Any number of
processes and threads may share one archive.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int

from portraitzoo.errors import MediaError
from portraitzoo.files import replacing
from portraitzoo.media.images import IMAGE_SUFFIXES

ARCHIVE_SUFFIX = ".zip"
_LOCAL_HEADER = 30
_EPOCH = (1980, 1, 1, 0, 0, 0)


class FrameArchive:
    """Frames of an archive: entries ``class/video/frame.png`` (any depth), those of one folder being one video.

    Args:
        path: the zip file.

    Attributes:
        videos: for each video by name, where its frames lie, in the order of their names.

    Raises:
        MediaError: if it is absent, damaged, compressed or without frames.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        entries: dict[str, list[tuple[str, int, int, int]]] = defaultdict(list)
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    name = PurePosixPath(info.filename)
                    if name.suffix.lower() not in IMAGE_SUFFIXES or name.name.startswith("."):
                        continue
                    if info.compress_type != zipfile.ZIP_STORED:
                        raise MediaError(
                            f"{self.path} is compressed, so its frames cannot be read at random: write it with "
                            "`zoo preprocess archive`, or with `zip -0`"
                        )
                    place = (name.name, info.header_offset, info.file_size, info.CRC)
                    entries[name.parent.as_posix()].append(place)
            self._file = os.open(self.path, os.O_RDONLY)
        except (OSError, zipfile.BadZipFile) as error:
            raise MediaError(f"{self.path} is no archive that can be read, or it is cut off: {error}") from error
        if not entries:
            raise MediaError(f"the archive {self.path} holds no frames: entries are class/video/frame.png")
        self.videos: dict[str, Int[np.ndarray, "time 3"]] = {
            name: np.array([place for _, *place in sorted(entries[name])], dtype=np.int64) for name in sorted(entries)
        }

    def read(self, video: str, index: int) -> bytes:
        """The file of a frame.

        Raises:
            MediaError: if it is damaged.
        """
        offset, size, checksum = (int(value) for value in self.videos[video][index])
        # The name's and the extra field's lengths in front of the content may differ from those in the directory.
        header = os.pread(self._file, _LOCAL_HEADER, offset)
        begin = (
            offset + _LOCAL_HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        )
        content = os.pread(self._file, size, begin)
        if zlib.crc32(content) != checksum:
            raise MediaError(f"frame {index} of {video} in {self.path} is damaged: copy the archive again")
        return content

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __reduce__(self) -> tuple[type[FrameArchive], tuple[Path]]:
        return FrameArchive, (self.path,)


def write_frame_archive(path: str | Path, frames: Iterable[tuple[str, bytes]]) -> Path:
    """Write an archive; equal frames give equal bytes.

    Args:
        path: ends in .zip.
        frames: entry names (``class/video/0000000.png``) and the content of the image files.

    Raises:
        MediaError: for another suffix.
        ZooError: if the place cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ARCHIVE_SUFFIX:
        raise MediaError(f"archives of frames are written as .zip: rename {path.name}")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in frames:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return path
