"""Numbers of pairs: PSNR in NPVA's three ways, SSIM, MS-SSIM, L1 and LPIPS against the item that was to be made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.clip import Clip
from portraitzoo.metrics import structure
from portraitzoo.metrics.lpips import LEAST_SIZE
from portraitzoo.metrics.measures.base import Stage
from portraitzoo.metrics.measures.items import ItemMeasure
from portraitzoo.metrics.pairs import TARGET, masked
from portraitzoo.metrics.protocols import Protocol
from portraitzoo.metrics.psnr import PEAK, masked_mse
from portraitzoo.metrics.reconstruction import MASK, SUFFIX
from portraitzoo.metrics.results import Gathered

MASK_WANTED = f"put NAME{SUFFIX} with mask [frames, height, width] beside each file, or give clips a map called mask"

Frames = UInt8[Tensor, "batch height width 3"]


class PairStage(Stage):
    """A row of numbers for each frame of a pair."""

    need = "pairs"
    finite = False

    def rows(self, clips: Sequence[Clip]) -> list[Float32[np.ndarray, "rows features"]]:
        """A row for each frame."""
        return [np.concatenate(self._parts(clip)) for clip in clips]

    def _parts(self, clip: Clip) -> list[Float32[np.ndarray, "frames numbers"]]:
        size = 4 * self.batch_size
        return [self.frame_rows(clip[first : first + size]) for first in range(0, len(clip), size)]

    @abstractmethod
    def frame_rows(self, clip: Clip) -> Float32[np.ndarray, "frames numbers"]:
        """Numbers of the frames of a piece of a pair."""


class PictureStage(PairStage):
    """Numbers of the two pictures of a frame; outside the mask both are black, if the protocol has it so."""

    maps = (MASK,)

    @property
    def key(self) -> dict[str, object]:
        """Whether the mask counts matters too."""
        return super().key | {"masked": self.protocol.masked}

    def frame_rows(self, clip: Clip) -> Float32[np.ndarray, "frames numbers"]:
        """One number for each frame."""
        images, targets = clip.frames, clip.maps[TARGET]
        if self.protocol.masked:
            valid = needed_mask(clip)[..., None]
            images, targets = images * valid, targets * valid
        found = self.compare(images.to(self.device), targets.to(self.device))
        return found.float().cpu().numpy()[:, None]

    @abstractmethod
    def compare(self, images: Frames, targets: Frames) -> Float[Tensor, " batch"]:
        """A number for each pair of pictures."""


class PixelErrors(PairStage):
    """Mean squared and mean absolute error, of all pixels, masked ones as black, and of valid ones only."""

    name = "pixels"
    maps = (MASK,)

    def frame_rows(self, clip: Clip) -> Float32[np.ndarray, "frames numbers"]:
        """MSE, L1, MSE with black pixels outside the mask, MSE inside it; on the scale 0..255."""
        images, targets = clip.frames.float() / PEAK, clip.maps[TARGET].float() / PEAK
        everywhere = torch.ones(clip.frames.shape[:3], dtype=torch.bool)
        valid = masked(clip)
        absolute = (images - targets).abs().double()
        if self.protocol.masked:
            absolute = absolute * needed_mask(clip)[..., None]
        columns = [masked_mse(images, targets, everywhere), PEAK * absolute.mean((1, 2, 3))]
        unknown = torch.full((len(clip),), torch.nan)
        for only in (False, True):
            columns.append(unknown if valid is None else masked_mse(images, targets, valid, valid_only=only))
        return torch.stack([column.float() for column in columns], dim=1).numpy()

    @property
    def key(self) -> dict[str, object]:
        """Whether the mask counts matters too."""
        return super().key | {"masked": self.protocol.masked}


class AlexDistances(PictureStage):
    """LPIPS on AlexNet."""

    name = "lpips-alex"

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The index entry of LPIPS on AlexNet."""
        return "lpips-alex"

    def compare(self, images: Frames, targets: Frames) -> Float[Tensor, " batch"]:
        """Perceptual distance of each pair."""
        return perceptual(self, images, targets)


class VGGDistances(AlexDistances):
    """LPIPS on VGG-16."""

    name = "lpips-vgg"

    @classmethod
    def network_name(cls, protocol: Protocol) -> str:
        """The index entry of LPIPS on VGG-16."""
        return "lpips-vgg"


class Structures(PictureStage):
    """Structural similarity."""

    name = "ssim"

    def compare(self, images: Frames, targets: Frames) -> Float[Tensor, " batch"]:
        """Similarity of each pair."""
        return structure.ssim(images, targets)


class MultiscaleStructures(PictureStage):
    """Multi-scale structural similarity."""

    name = "ms-ssim"

    def compare(self, images: Frames, targets: Frames) -> Float[Tensor, " batch"]:
        """Similarity of each pair."""
        return structure.ms_ssim(images, targets)


class PairMeasure(ItemMeasure):
    """A number for each frame of each pair; the value is the mean over frames."""

    paired = True
    unit = "pairs"
    column: ClassVar[int] = 0

    def values(self, generated: Gathered) -> list[Float[np.ndarray, " parts"]]:
        """The measure's column of the rows of all pieces of one name."""
        pieces: dict[str, list[Float32[np.ndarray, "rows features"]]] = {}
        for index, rows in generated.rows.items():
            pieces.setdefault(generated.names[index], []).append(rows)
        return [np.concatenate(rows)[:, self.column].astype(np.float64) for rows in pieces.values()]

    def names(self, generated: Gathered) -> list[str]:
        """Names of the pairs, each once."""
        return list(dict.fromkeys(generated.names.values()))


class ErrorMeasure(PairMeasure):
    """A number made of one column of the pixel errors."""

    stage_type = PixelErrors


class PSNR(ErrorMeasure):
    """Peak signal-to-noise ratio of all pixels in decibels: the mean of the frames' values, as most papers report.

    The ratio of the mean error, which is another (smaller) number, stands beside it as ``psnr_of_mean``.
    """

    name = "psnr"
    title = "PSNR"
    column = 0
    higher_is_better = True
    empty = "the two frames of every pair are equal, so it is infinite (or a mask is empty)"

    def values(self, generated: Gathered) -> list[Float[np.ndarray, " parts"]]:
        """Decibels of each frame; NaN for equal frames."""
        return [_decibels(errors) for errors in super().values(generated)]

    def extra(self, values: list[Float[np.ndarray, " parts"]]) -> dict[str, float]:
        """The ratio of the mean error too."""
        errors = PEAK**2 / 10 ** (np.concatenate(values) / 10)
        return {"psnr_of_mean": float(_decibels(np.array([np.nanmean(errors)]))[0])}


class FullPSNR(ErrorMeasure):
    """NPVA's reported PSNR: black outside the mask, mean over all pixels, and the ratio of the MEAN error over images.

    The black pixels count and agree, so it is higher than that of the valid ones by the share of the picture that they
    take.
    """

    name = "psnr-full"
    title = "PSNR (full)"
    column = 2
    higher_is_better = True
    empty = f"no pair has a mask: {MASK_WANTED}"

    def mean(self, values: Float[np.ndarray, " numbers"]) -> float:
        """Decibels of the mean error."""
        return float(_decibels(values.mean(keepdims=True))[0])


class ValidPSNR(PSNR):
    """NPVA's PSNR in validation: of the pixels inside the mask only, the mean of the frames' values."""

    name = "psnr-valid"
    title = "PSNR (valid)"
    column = 3
    empty = f"no pair has a mask with a pixel in it, or all frames are equal: {MASK_WANTED}"


class L1(ErrorMeasure):
    """Mean absolute difference, in grey levels 0..255."""

    name = "l1"
    title = "L1"
    column = 1


class SSIM(PairMeasure):
    """Structural similarity: 11 x 11 Gaussian window, range 1; see :mod:`portraitzoo.metrics.structure`."""

    name = "ssim"
    title = "SSIM"
    stage_type = Structures
    higher_is_better = True


class MSSSIM(PairMeasure):
    """Multi-scale structural similarity over five scales."""

    name = "ms-ssim"
    title = "MS-SSIM"
    stage_type = MultiscaleStructures
    higher_is_better = True


class LPIPSAlex(PairMeasure):
    """Learned perceptual distance on AlexNet."""

    name = "lpips-alex"
    title = "LPIPS (alex)"
    stage_type = AlexDistances


class LPIPSVGG(PairMeasure):
    """Learned perceptual distance on VGG-16, as NPVA and Portrait4D report."""

    name = "lpips-vgg"
    title = "LPIPS (vgg)"
    stage_type = VGGDistances


def perceptual(stage: Stage, images: Tensor, targets: Tensor) -> Float[Tensor, " batch"]:
    """LPIPS of each pair by the stage's network.

    Raises:
        ZooError: for images too small to have deep features.
    """
    assert stage.network is not None
    net = getattr(stage.network.module, "net", "alex")
    height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:4]
    if min(height, width) < LEAST_SIZE[net]:
        raise ZooError(f"LPIPS on {net} needs images of {LEAST_SIZE[net]} pixels or more a side, not {width}x{height}")
    return stage.network(images, targets)


def needed_mask(clip: Clip) -> Tensor:
    """Valid pixels of a pair, bool [time, height, width].

    Raises:
        ZooError: if neither side has a mask.
    """
    valid = masked(clip)
    if valid is None:
        raise ZooError(f"the protocol compares inside a mask, and a pair has none: {MASK_WANTED}")
    return valid


def _decibels(errors: Float[np.ndarray, " numbers"]) -> Float[np.ndarray, " numbers"]:
    """PSNR of mean squared errors; NaN for none at all."""
    return np.where(errors > 0, 10 * np.log10(PEAK**2 / np.where(errors > 0, errors, 1)), np.nan)
