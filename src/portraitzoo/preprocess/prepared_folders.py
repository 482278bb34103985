"""Folders of prepared faces as files: what lies in them under which name, read with one line for what is wrong.

A folder holds, for each picture NAME, ``align_images/NAME.jpg`` (or .png), ``segs/NAME.png`` (white where the person
is), ``flame_optim_params/NAME.npy`` (437 numbers: camera 25, FLAME parameters 412) and ``motion_feats/NAME.npy``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import MediaError
from portraitzoo.media.arrays import DAMAGE, read_array
from portraitzoo.media.images import IMAGE_SUFFIXES, is_visible, list_images, natural_order, read_image, write_image
from portraitzoo.media.portrait_lmdb import LABEL, ClipRecord
from portraitzoo.methods.portrait4d import folders
from portraitzoo.methods.portrait4d.folders import IMAGES, MOTIONS
from portraitzoo.preprocess.frames import square_crop

SEGMENTATIONS, LABELS = "segs", folders.LABELS["fitted"]


@dataclass(frozen=True)
class PreparedFace:
    """The files of a picture.

    Attributes:
        folder: that the folders of images and numbers lie in.
        image: the aligned picture.
    """

    folder: Path
    image: Path

    @property
    def label(self) -> Path:
        """Where its camera and FLAME parameters belong."""
        return self.folder / LABELS / f"{self.image.stem}.npy"

    @property
    def motion(self) -> Path:
        """Where its motion embedding belongs."""
        return self.folder / MOTIONS / f"{self.image.stem}.npy"

    @property
    def segmentation(self) -> Path | None:
        """Its mask, if there is one."""
        places = (self.folder / SEGMENTATIONS / f"{self.image.stem}{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
        return next((path for path in places if path.is_file()), None)

    def read(self, resolution: int) -> ClipRecord:
        """The picture and all that belongs to it, as a clip of one frame; resized where it is of another size.

        Without a file of a motion embedding there are no motion numbers.

        Raises:
            MediaError: if something is missing, damaged, of another shape or not finite.
        """
        segmentation = self.segmentation
        if segmentation is None:
            raise MediaError(f"{self.folder} has no segmentation of {self.image.stem} ({SEGMENTATIONS}): prepare it")
        if not self.label.is_file():
            raise MediaError(f"{self.folder} has no parameters of {self.image.stem} ({LABELS}): prepare them first")
        label = _numbers(self.label)
        if len(label) != LABEL:
            raise MediaError(f"{self.label} holds {len(label)} numbers, not {LABEL}: prepare it again")
        motion = _numbers(self.motion) if self.motion.is_file() else torch.zeros(0)
        return ClipRecord(
            _picture(self.image, resolution)[None], _picture(segmentation, resolution)[None], label[None], motion[None]
        )


def find_prepared(data: str | Path) -> list[Path]:
    """The folders of prepared faces in a folder (or itself), in natural order.

    Raises:
        MediaError: if there are none.
    """
    root = Path(data)
    if not root.is_dir():
        raise MediaError(f"there is no folder {root}")
    if (root / IMAGES).is_dir():
        return [root]
    found = [path for path in root.iterdir() if is_visible(path) and (path / IMAGES).is_dir()]
    if not found:
        raise MediaError(f"{root} holds no prepared faces: expected folders with {IMAGES}, {SEGMENTATIONS}, {LABELS}")
    return sorted(found, key=natural_order)


def faces_of(folder: Path) -> list[PreparedFace]:
    """The pictures of a folder of prepared faces, in natural order."""
    return [PreparedFace(folder, path) for path in list_images(folder / IMAGES)]


def write_prepared(folder: Path, clip: ClipRecord, names: list[str]) -> None:
    """Write frames into a new folder of prepared faces, pictures as PNG.

    Args:
        folder: the folder.
        clip: frames and what belongs to them.
        names: of the frames, without suffix.
    """
    for part in (IMAGES, SEGMENTATIONS, LABELS, MOTIONS):
        (folder / part).mkdir(parents=True)
    for index, name in enumerate(names):
        write_image(folder / IMAGES / f"{name}.png", clip.images[index])
        write_image(folder / SEGMENTATIONS / f"{name}.png", clip.segmentations[index])
        np.save(folder / LABELS / f"{name}.npy", clip.labels[index].numpy())
        np.save(folder / MOTIONS / f"{name}.npy", clip.motions[index].numpy())


def _picture(path: Path, resolution: int) -> UInt8[Tensor, "side side 3"]:
    picture = read_image(path)
    height, width, _ = picture.shape
    if height != width:
        raise MediaError(f"{path} is {width}x{height}, not square: align the pictures first")
    return picture if height == resolution else torch.from_numpy(square_crop(picture.numpy(), resolution))


def _numbers(path: Path) -> Float[Tensor, " numbers"]:
    try:
        values = torch.from_numpy(read_array(path).astype(np.float32)).flatten()
    except DAMAGE as error:
        raise MediaError(f"{path} is no array that can be read, or it is damaged: prepare it again") from error
    if not torch.isfinite(values).all():
        raise MediaError(f"{path} holds NaN or infinite numbers: prepare it again, or take the picture out")
    return values
