"""Prepared faces on disk, as the authors' preprocessing lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.faces.motion_embedding import MotionEncoder, crop_face
from portraitzoo.hub.loading import load
from portraitzoo.media.arrays import DAMAGE, read_array
from portraitzoo.media.images import from_uint8, list_images, natural_order, read_image
from portraitzoo.methods.portrait4d.prepared import FRAME_LABEL, Frames, Portrait
from portraitzoo.methods.portrait4d.sources import FaceSource, OnBadFrame

IMAGES, LANDMARKS, MOTIONS = "align_images", "3dldmks_align", "motion_feats"
LABELS = {"fitted": "flame_optim_params", "simplified": "bfm2flame_params_simplified"}
"""Folders of head parameters: fitted to each picture, or converted from another head model's (no gaze)."""
ENCODER = "pdfgc-motion"
"""Entry of the index that embeds motion as the released networks were trained with it."""

LabelKind = Literal["fitted", "simplified"]


class PreparedFolder(FaceSource):
    """Pictures of one face and what was found out about them, read when asked for.

    Files of one picture share a name: ``align_images/NAME.png`` (or .jpg); head parameters, 437 numbers:
    ``flame_optim_params/NAME.npy`` or ``bfm2flame_params_simplified/NAME.npy``; ``motion_feats/NAME.npy``, or else
    ``3dldmks_align/NAME.npy`` to find the motion with. Pictures are needed only where they are looked at.

    Args:
        path: the folder.
        parameters: which of the head parameters; None takes ``fitted`` ones where there are any.
        encoder: embeds the motion of pictures without ``motion_feats``; None for PD-FGC's, downloaded when needed.
        device: where it then computes; None for the best one here.
        side: that pictures must have, in pixels; None takes any.

    Attributes:
        names: of all pictures in order (numbers within them count), those included that lack something: of a numbered
            folder that holds at least half of the numbers between its first and its last one, the others too.

    Raises:
        ZooError: if there is no such folder, or no head parameters in it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        parameters: LabelKind | None = None,
        encoder: MotionEncoder | None = None,
        device: torch.device | str | None = None,
        side: int | None = None,
    ) -> None:
        self.path, self.side, self._device = Path(path), side, device
        self._encoder: nn.Module | None = encoder
        if parameters is not None and parameters not in LABELS:
            raise ZooError(f"unknown head parameters {parameters!r}: choose {' or '.join(LABELS)}")
        if not self.path.is_dir():
            told = "is a file: give the folder that it was prepared into" if self.path.exists() else "does not exist"
            raise ZooError(f"{self.path} {told}")
        wanted = [LABELS[parameters]] if parameters else list(LABELS.values())
        found = [self.path / part for part in wanted if any((self.path / part).glob("*.npy"))]
        if not found:
            places = " or ".join(f"{part}/*.npy" for part in wanted)
            raise ZooError(f"there are no head parameters ({places}) in {self.path}: prepare it first")
        self.labels = found[0]
        images = self.path / IMAGES
        self._pictures = {path.stem: path for path in list_images(images)} if images.is_dir() else {}
        arrays = {path.stem for folder in (self.labels, self.path / MOTIONS) for path in folder.glob("*.npy")}
        self.names = _with_gaps(arrays | self._pictures.keys())

    def frame(self, name: str) -> Frames:
        """What is known of one picture.

        Raises:
            WeightsUnavailableError: if motion is to be embedded and the encoder's weights cannot be had.
            ZooError: if something is missing or damaged, or holds NaN; the message names it.
        """
        label = self.numbers(self.labels.name, name, "head parameters", (FRAME_LABEL,))
        if (self.path / MOTIONS / f"{name}.npy").is_file() or not (self.path / LANDMARKS).is_dir():
            motion = self.numbers(MOTIONS, name, "motion embedding", (-1,))
        else:
            motion = self._embedded(name)
        return Frames.from_labels(label[None], motion[None])

    def check_size(self) -> None:
        """Refuse pictures of another size, judging by the first.

        Raises:
            ZooError: as :meth:`picture`.
        """
        if self._pictures:
            self.picture(min(self._pictures))

    def picture(self, name: str) -> UInt8[Tensor, "height width 3"]:
        """One of the pictures, without its alpha channel.

        Raises:
            ZooError: if it is missing, damaged or of another size.
        """
        if name not in self._pictures:
            raise MediaError(f"there is no picture {IMAGES}/{name} in {self.path}")
        image = read_image(self._pictures[name])
        height, width, _ = image.shape
        if self.side is not None and (height, width) != (self.side, self.side):
            raise ZooError(
                f"{self._pictures[name]} has {width} x {height} pixels, the network wants {self.side} x {self.side}: "
                "align it first"
            )
        return image

    @torch.no_grad()
    def _embedded(self, name: str) -> Float[Tensor, " motion_dim"]:
        landmarks = self.numbers(LANDMARKS, name, "landmarks", (-1, -1))[None, :, :2]
        image = from_uint8(self.picture(name)[None])
        encoder = load(ENCODER, self._device) if self._encoder is None else self._encoder
        self._encoder = encoder
        device = next(encoder.parameters()).device
        return encoder(crop_face(image.to(device), landmarks.to(device)))[0].cpu()

    def numbers(self, part: str, name: str, what: str, shape: tuple[int, ...]) -> Float[Tensor, ...]:
        """One of the files, float32.

        Args:
            part: folder that it lies in.
            name: of the picture.
            what: they are, for messages.
            shape: that they must have, -1 for any length; where it has one axis, others are flattened.

        Raises:
            ZooError: if the file is missing, damaged, of another shape or holds NaN.
        """
        path = self.path / part / f"{name}.npy"
        if not path.is_file():
            raise ZooError(f"{self.path} has no {what} of {name} ({part}/{name}.npy): prepare it first")
        try:
            array = read_array(path)
        except DAMAGE as error:
            raise MediaError(f"cannot read {path}: it is no array of numbers") from error
        array = np.asarray(array).reshape(-1) if len(shape) == 1 else np.asarray(array)
        fits = array.ndim == len(shape) and all(w in (-1, size) for w, size in zip(shape, array.shape, strict=True))
        if array.dtype.kind not in "fiu" or not fits:
            raise MediaError(f"{path} holds {array.dtype} {list(array.shape)}, not {list(shape)} numbers (-1: any)")
        if not np.isfinite(array).all():
            raise ZooError(f"{path} holds NaN or infinite numbers: prepare it again")
        return torch.from_numpy(array.astype(np.float32))


def read_frames(
    folder: str | Path,
    *,
    parameters: LabelKind | None = None,
    encoder: MotionEncoder | None = None,
    device: torch.device | str | None = None,
    on_bad_frame: OnBadFrame = "stop",
) -> Frames:
    """Tracked frames of a prepared folder, in the order of their names.

    Args:
        folder: laid out as :class:`PreparedFolder` says.
        parameters: as in :class:`PreparedFolder`.
        encoder: as in :class:`PreparedFolder`.
        device: as in :class:`PreparedFolder`.
        on_bad_frame: as in :meth:`PreparedFolder.read`.

    Raises:
        ZooError: if the folder lacks something; the message names it.
    """
    return PreparedFolder(folder, parameters=parameters, encoder=encoder, device=device).read(on_bad_frame)[1]


def read_portrait(
    place: str | Path,
    name: str | None = None,
    *,
    parameters: LabelKind | None = None,
    encoder: MotionEncoder | None = None,
    device: torch.device | str | None = None,
) -> Portrait:
    """A photo of a prepared folder.

    Args:
        place: the folder, laid out as :class:`PreparedFolder` says; or a picture in its ``align_images``.
        name: of the photo without suffix; None for the first, or for the picture named.
        parameters: as in :class:`PreparedFolder`.
        encoder: as in :class:`PreparedFolder`.
        device: as in :class:`PreparedFolder`.

    Raises:
        ZooError: if the folder lacks something; the message names it.
    """
    place = Path(place)
    if place.is_file():
        if place.parent.name != IMAGES:
            raise ZooError(
                f"there are no head parameters of {place}: prepare it first, then give the prepared folder or a "
                f"picture in its {IMAGES}"
            )
        place, name = place.parent.parent, place.stem
    folder = PreparedFolder(place, parameters=parameters, encoder=encoder, device=device)
    return folder.portrait(folder.names[0] if name is None else name)


def write_frames(folder: str | Path, frames: Frames, names: list[str] | None = None) -> Path:
    """Write frames as :func:`read_frames` reads them, as fitted parameters.

    Args:
        folder: to write to.
        frames: tracked frames.
        names: of the files, without suffix; numbers where None.
    """
    folder, labels = Path(folder), frames.labels()
    for part, rows in ((LABELS["fitted"], labels), (MOTIONS, frames.motion)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index, row in enumerate(rows):
            name = names[index] if names else f"{index:05d}"
            np.save(folder / part / f"{name}.npy", row.cpu().numpy().astype(np.float32))
    return folder


def _with_gaps(names: set[str]) -> list[str]:
    """The names in order, with the numbers that a video's frames lack."""
    if all(name.isascii() and name.isdigit() for name in names):
        numbers, widths = [int(name) for name in names], {len(name) for name in names}
        first, count, width = min(numbers), max(numbers) - min(numbers) + 1, widths.pop() if len(widths) == 1 else 0
        # Pictures out of a large collection are numbered too, but nearly all of its numbers are elsewhere.
        if count <= 2 * len(names):
            counted = [f"{number:0{width}d}" for number in range(first, first + count)]
            if names <= set(counted):
                return counted
    return sorted(names, key=lambda name: natural_order(Path(name)))
