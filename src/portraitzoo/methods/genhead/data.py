"""GenHead's training data: photos with segmentations, cameras and FLAME parameters, in the authors' LMDB layout.

A folder ``NAME_<resolution>_<count>`` (see :mod:`portraitzoo.media.portrait_lmdb`; ``zoo preprocess synthetic --family
genhead`` writes one of free heads). A label is the camera that holds the whole pose of the head (25 numbers), then
FLAME's shape, expression, pose and gaze (412).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from portraitzoo.layers.resampling import resize
from portraitzoo.media.portrait_lmdb import PortraitLMDB
from portraitzoo.methods.genhead.cameras import FOCAL
from portraitzoo.training.draws import numpy_generator
from portraitzoo.training.stream import StreamDataModule

GENERATING_PHASES = 3
"""Phases of an update that generate images (Gmain, Greg, Dmain); each takes heads of its own from the data."""
_FOCAL_PLACE = 16  # of a label's first focal length


class PhotoBatch(NamedTuple):
    """A batch of real photos and the heads for generated ones.

    Attributes:
        image: in [-1, 1].
        segmentation: 1 on the head, -1 beside it.
        label: camera and FLAME parameters of the photo.
        generated_labels: for each phase that generates, those of another photo.
        position: place of each sample in the endless stream of training samples.
    """

    image: Float[Tensor, "batch 3 height width"]
    segmentation: Float[Tensor, "batch 1 height width"]
    label: Float[Tensor, "batch 437"]
    generated_labels: Float[Tensor, "batch 3 437"]
    position: Int[Tensor, " batch"]


def to_network(
    pictures: UInt8[Tensor, "batch size size 3"], resolution: int
) -> Float[Tensor, "batch 3 {resolution} {resolution}"]:
    """8-bit pictures as the networks see them: in [-1, 1], bilinearly resized, with antialiasing where larger."""
    return resize(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1, resolution)


class Photos(Dataset[PhotoBatch]):
    """Photos of an LMDB, each with the heads of three others for images to generate.

    Indexed by ``(position, photo)``: every draw is a function of ``seed`` and ``position``, whoever makes it.

    Args:
        source: the records.
        resolution: side of the images given out, pixels.
        in_memory: decode every photo once, now, and keep it as 8-bit pixels of ``resolution``.
        seed: seed of all draws.

    Raises:
        MediaError: for a record that cannot be read or whose label is no row of finite numbers; at once with
            ``in_memory``, else when it is drawn.
    """

    def __init__(self, source: PortraitLMDB, resolution: int, in_memory: bool = False, seed: int = 0) -> None:
        self.source, self.resolution, self.seed = source, resolution, seed
        self._kept = [self._small(index) for index in range(len(source))] if in_memory else None
        self._labels = [source.label(index) for index in range(len(source))] if in_memory else None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> PhotoBatch:
        position, index = key
        draw = numpy_generator(self.seed, position)
        kept = self._small(index) if self._kept is None else self._kept[index]
        image, segmentation = to_network(kept, self.resolution)
        return PhotoBatch(
            image=image,
            segmentation=segmentation.mean(0, keepdim=True),
            label=self.label(index),
            generated_labels=torch.stack([self.label(int(draw.integers(len(self)))) for _ in range(GENERATING_PHASES)]),
            position=torch.tensor(position),
        )

    def label(self, index: int) -> Float[Tensor, " 437"]:
        """Camera and FLAME parameters of a photo."""
        return self.source.label(index) if self._labels is None else self._labels[index]

    def _small(self, index: int) -> UInt8[Tensor, "2 size size 3"]:
        record = self.source[index]
        pair = torch.stack([record.image, record.segmentation])
        if pair.shape[1] <= self.resolution:
            return pair
        small = to_network(pair, self.resolution)
        return ((small + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class GenHeadDataModule(StreamDataModule):
    """Photos of an LMDB in the authors' layout.

    Args:
        root: folder ``NAME_<resolution>_<count>``.
        batch_size: photos of one update, over all devices; the number of devices must divide it.
        num_workers: processes that decode, per device.
        image_resolution: side of the images in pixels; None takes that of the network in training.
        in_memory: decode all photos once and keep them as 8-bit pixels (for small data sets).
        photos_per_epoch: photos after which the trainer counts an epoch; None: as many as there are.
        val_root: data that training does not see. Training validates on them after every epoch; ``zoo validate`` and
            ``zoo test`` take ``root`` where there is none.
        predictions: clips that ``zoo predict`` draws, of the seeds from 0 on.
        seed: seed of shuffling and of the heads of generated images.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 32,
        num_workers: int = 3,
        image_resolution: int | None = None,
        in_memory: bool = False,
        photos_per_epoch: int | None = None,
        val_root: str | None = None,
        predictions: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(root, batch_size, num_workers, photos_per_epoch, image_resolution, val_root, predictions, seed)
        self.in_memory = in_memory

    def open(self, root: str, training: bool) -> Photos:
        """Photos of a folder.

        Raises:
            MediaError: if it is no such folder or is damaged.
        """
        photos = Photos(PortraitLMDB(root), self.resolution(), self.in_memory, self.seed)
        focal = float(photos.label(0)[_FOCAL_PLACE])
        if abs(focal / FOCAL - 1) > 0.02:
            warnings.warn(
                f"the cameras of {root} have a focal length of {focal:.3f}; GenHead draws the masks of eyes and mouth "
                f"with {FOCAL:.3f} whatever they say",
                stacklevel=2,
            )
        return photos
