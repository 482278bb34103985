"""Where bulk sampling puts the files of a seed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import write_image
from portraitzoo.media.video import DEFAULT_QUALITY

SEED_NAMES = "seed_{seed:06d}"
PV3D_NAMES = "videos/rgb_{seed:04d}"
"""Names of PV3D's evaluation clips."""

MULTIVIEW_FRAMES = 4


class Layout(Protocol):
    """Where the files of a seed go."""

    @property
    def folder(self) -> Path:
        """Folder of the run file."""

    def finished(self, seed: int) -> bool:
        """Whether everything of this seed is there."""

    def write(self, seed: int, clip: Clip) -> None:
        """Write everything of this seed, the part that ``finished`` looks for last."""

    def describe(self) -> dict[str, object]:
        """What decides the bytes that ``write`` writes, as JSON."""


@dataclass(frozen=True)
class ClipFiles:
    """One file (or folder of frames) for each seed.

    Attributes:
        out: folder of the run.
        names: path below ``out`` without suffix; its last part holds ``{seed}`` or a form of it such as ``{seed:04d}``.
        suffix: ``.mp4``, ``.npz``, ``.png`` (contact sheet) or empty (folder of PNG frames).
        quality: of .mp4, 0 to 10.

    Raises:
        ZooError: for another suffix, or names without the seed.
    """

    out: Path
    names: str = SEED_NAMES
    suffix: str = ".mp4"
    quality: float = DEFAULT_QUALITY

    def __post_init__(self) -> None:
        if self.suffix not in (".mp4", ".npz", ".png", ""):
            raise ZooError(
                f"clips are written as .mp4, .npz, .png or folders of frames (no suffix), not {self.suffix!r}"
            )
        if not re.fullmatch(r"[^{}]*\{seed(:0?[0-9]*d)?\}[^{}/]*", self.names) or Path(self.names).is_absolute():
            raise ZooError(
                f"names of clips need the seed in them, such as {SEED_NAMES}, and no root: not {self.names!r}"
            )

    @property
    def folder(self) -> Path:
        """Folder of the clips."""
        return self.path(0).parent

    def path(self, seed: int) -> Path:
        """File or folder of a seed."""
        return self.out / (self.names.format(seed=seed) + self.suffix)

    def finished(self, seed: int) -> bool:
        """Whether the clip is there."""
        return self.path(seed).exists()

    def write(self, seed: int, clip: Clip) -> None:
        """Save the clip."""
        clip.save(self.path(seed), quality=self.quality)

    def describe(self) -> dict[str, object]:
        """Names with suffix and, of videos, the quality."""
        described: dict[str, object] = {"files": self.names + self.suffix}
        return described | ({"quality": self.quality} if self.suffix == ".mp4" else {})


@dataclass(frozen=True)
class MultiviewFiles:
    """PV3D's multi-view layout: ``multi/images/{seed:04d}_{k:02d}.png`` and ``multi/depth/{seed:04d}.npz``.

    The arrays have the names and shapes of PV3D's program, float32: ``xyz`` [4, R, R, 3], ``depth`` [4, 1, R, R],
    ``weights_total`` [4, R, R, 1].
    """

    out: Path

    @property
    def folder(self) -> Path:
        """The folder ``multi``."""
        return self.out / "multi"

    def finished(self, seed: int) -> bool:
        """Whether the arrays, which are written last, are there."""
        return self._arrays(seed).exists()

    def write(self, seed: int, clip: Clip) -> None:
        """Write four images, then the arrays.

        Raises:
            ZooError: if the clip is not of four frames with the maps ``position``, ``depth`` and ``opacity``.
        """
        if len(clip) != MULTIVIEW_FRAMES or not {"position", "depth", "opacity"} <= clip.maps.keys():
            raise ZooError(f"a multi-view head is 4 frames with position, depth and opacity, not {len(clip)} frames")
        for view, frame in enumerate(clip.frames):
            write_image(self.folder / "images" / f"{seed:04d}_{view:02d}.png", frame)
        with replacing(self._arrays(seed)) as temporary:
            np.savez_compressed(
                temporary,
                xyz=clip.maps["position"].float().numpy(),
                depth=clip.maps["depth"].float().numpy()[:, None],
                weights_total=clip.maps["opacity"].float().numpy()[..., None],
            )

    def describe(self) -> dict[str, object]:
        """Nothing but the name of the layout."""
        return {"layout": "multiview"}

    def _arrays(self, seed: int) -> Path:
        return self.folder / "depth" / f"{seed:04d}.npz"
