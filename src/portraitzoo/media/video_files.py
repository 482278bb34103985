"""Decoding one video file by frame index, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from portraitzoo.errors import MediaError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})

LAST_FRAMES = 2
"""Durations of a frame by which a whole file may end before the length that its header states."""

# Playlists and the like may name other files and hosts; only true containers of pictures are opened.
_CONTAINERS = "mov,mp4,matroska,webm,avi"


class VideoFile:
    """Frames of one video file, addressed by index.

    Alpha is dropped, grey is repeated to three channels, 10 and more bits become 8, and the rotation that phones note
    in the file (a multiple of 90 degrees) is applied.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise MediaError(f"cannot read the video {self.path}: {error.strerror}") from error
        if size == 0:
            raise MediaError(f"the video {self.path} is empty (0 bytes): copy it again or remove it")
        options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        try:
            self._container = av.open(
                f"file:{self.path.resolve()}", container_options=options, metadata_errors="ignore"
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MediaError(
                f"{self.path} is no video that can be read, or it is cut off or damaged: copy it again or remove it"
            ) from error
        if not self._container.streams.video:
            self._container.close()
            raise MediaError(f"{self.path} holds no pictures: it is cut off, or sound only; give another file")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise MediaError(f"{self.path} is coded in a way that PyAV cannot decode: convert it to H.264")
        # One thread: exact seeking costs little, and data loaders already run one process per core.
        self._stream.thread_count = 1

    @property
    def fps(self) -> float:
        """Mean frames per second; 25 where the file does not say."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate else 25.0

    @property
    def comment(self) -> str:
        """The container's free text, empty if there is none."""
        return str({k.lower(): v for k, v in self._container.metadata.items()}.get("comment", ""))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, rotation applied."""
        height, width, _ = self._picture(next(self._decoded(0))[1]).shape
        return height, width

    @cached_property
    def num_frames(self) -> int:
        """Number of frames, counted packet by packet (headers lie)."""
        return len(self._packets)

    @cached_property
    def _packets(self) -> list[int | None]:
        """Presentation time of every shown packet, in the order of showing; None throughout if they are not known."""
        try:
            self._container.seek(0, backward=True)
            everything = [packet for packet in self._container.demux() if packet.size]
        except av.FFmpegError as error:
            raise self._damaged() from error
        packets = [packet for packet in everything if packet.stream is self._stream]
        missing = self._announced_seconds - max((_end(packet) for packet in everything), default=0.0)
        if missing > LAST_FRAMES / self.fps:
            raise MediaError(
                f"the video {self.path} is cut off: the last {missing:.2f} s are missing; copy it again or remove it"
            )
        announced = self._stream.frames
        if len(packets) < announced or any(packet.is_corrupt for packet in packets):
            found = f"{sum(not packet.is_corrupt for packet in packets)} of {announced or 'its'} frames are there"
            raise MediaError(f"the video {self.path} is cut off: {found}; copy it again or remove it")
        times = [packet.pts for packet in packets if not packet.is_discard]
        if not times:
            raise MediaError(f"the video {self.path} holds no frames: remove it")
        known = {time for time in times if time is not None}
        # AVI stores the order of decoding only; the times that FFmpeg gives its packets are guesses.
        reliable = len(known) == len(times) and self._container.format.name != "avi"
        return [*sorted(known)] if reliable else [None] * len(times)

    @property
    def _announced_seconds(self) -> float:
        """Length in seconds as Matroska's header has it, which counts no frames; 0 where nothing is known."""
        duration = self._container.duration if "matroska" in self._container.format.name else None
        return duration / av.time_base if duration else 0.0

    def stream(self, start: int = 0) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Frames from ``start`` on, RGB, one at a time; memory does not grow with the length.

        Raises:
            MediaError: at the first frame that cannot be decoded.
        """
        expected = start
        for index, frame in self._decoded(start):
            if index < start:
                continue
            if index != expected or frame.is_corrupt:
                break
            yield self._picture(frame)
            expected += 1
        if expected < self.num_frames:
            raise self._damaged(expected)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _decoded(self, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Pairs of frame index and frame, from the key frame at or before ``start``."""
        times = self._packets
        if times[0] is None or start == 0:
            yield from enumerate(self._frames_from(0))
            return
        index_of = {time: index for index, time in enumerate(times)}
        frames = self._frames_from(times[start])
        first = next(frames, None)
        if first is None or first.pts not in index_of or index_of[first.pts] > start:
            # The container's index led past the frame (open groups of pictures do that): count from the beginning.
            yield from enumerate(self._frames_from(0))
            return
        yield index_of[first.pts], first
        for frame in frames:
            yield index_of.get(frame.pts, len(times)), frame

    def _frames_from(self, time: int | None) -> Iterator[av.VideoFrame]:
        try:
            if time:
                self._container.seek(time, stream=self._stream, backward=True)
            else:
                self._container.seek(0, backward=True)
            yield from self._container.decode(self._stream)
        except av.FFmpegError as error:
            raise self._damaged() from error

    def _picture(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
        pixels = frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90))) if frame.rotation else pixels

    def _damaged(self, index: int | None = None) -> MediaError:
        where = "" if index is None else f" at frame {index} of {self.num_frames}"
        return MediaError(f"the video {self.path} is damaged{where}: copy it again or remove it")


def _end(packet: av.Packet) -> float:
    """When a packet's content ends, in seconds."""
    if packet.pts is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)
