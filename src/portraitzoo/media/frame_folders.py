"""A folder of images as a video."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from portraitzoo.errors import MediaError
from portraitzoo.media.images import list_images, read_image

SIDECAR = "clip.json"
"""File beside the frames that says what pictures cannot: ``{"fps": ..., "cameras": ..., "info": ..., "maps": ...}``."""


class FrameFolder:
    """Frames of one folder of images, in natural order of their names."""

    comment = ""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._images = list_images(self.path)
        if not self._images:
            raise MediaError(f"the folder {self.path} holds no images: give a folder of .png or .jpg frames")

    @cached_property
    def sidecar(self) -> dict[str, object]:
        """What ``clip.json`` says; empty if there is none."""
        path = self.path / SIDECAR
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise MediaError(f"{path} is no JSON file: remove it or write it again") from error
        if not isinstance(content, dict):
            raise MediaError(f"{path} must hold a JSON object: remove it or write it again")
        return content

    @property
    def fps(self) -> float:
        """Frames per second of ``clip.json``; 25 without it."""
        fps = self.sidecar.get("fps", 25.0)
        if not isinstance(fps, int | float) or not 0 < fps < 1e6:
            raise MediaError(f"{self.path / SIDECAR}: fps must be a positive number, not {fps!r}")
        return float(fps)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first image in pixels."""
        height, width, _ = read_image(self._images[0]).shape
        return height, width

    @property
    def num_frames(self) -> int:
        """Number of images."""
        return len(self._images)

    def stream(self, start: int = 0) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Frames from ``start`` on, RGB, one at a time.

        Raises:
            MediaError: at an image that is damaged or not of the first one's size.
        """
        for path in self._images[start:]:
            image = read_image(path)
            if image.shape[:2] != self.size:
                raise MediaError(
                    f"{path} is {image.shape[1]}x{image.shape[0]}, but the first frame of the folder is "
                    f"{self.size[1]}x{self.size[0]}: frames of one clip have one size"
                )
            yield image.numpy()

    def close(self) -> None:
        """Nothing is held open."""
