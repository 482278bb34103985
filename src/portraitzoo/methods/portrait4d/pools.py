"""Portrait4D's parameter pools: what its synthesised training data are made of (CVPR 2024, section 3.4).

A folder holds ``*_all_shape_n_c_params.npy``, rows of a camera (25 numbers) and FLAME's shape (300), and
``*_all_motion_params.npy``, rows of expression (100), neck, jaw and gaze (12): ``[rows, 112]`` of photos or ``[clips,
frames, 112]`` of videos; FFHQ's are photos in any case. They come with GenHead's weights; ``zoo preprocess`` writes
them beside its LMDB folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from portraitzoo.errors import MediaError
from portraitzoo.methods.genhead.motions import MOTION_SIZE, SHAPE_ROW, load_rows  # the one family imported here
from portraitzoo.methods.portrait4d.cameras import label_of_camera
from portraitzoo.methods.portrait4d.training_views import NUMBERS, random_views
from portraitzoo.rendering.cameras import LABEL_SIZE
from portraitzoo.training.draws import numpy_generator
from portraitzoo.training.stream import StreamDataModule

SHAPES, MOTIONS = "*_all_shape_n_c_params.npy", "*_all_motion_params.npy"
NECK, JAW, EYES = slice(100, 103), 103, slice(106, 112)
"""Places within a row of motion: the neck, the jaw's opening, both eyes."""
PHOTOS = "ffhq"
VIEWS = 3
OWN_CAMERA, OWN_JAW = 0.5, 0.5
"""How often a view has a camera of the pool, and a jaw stays as it is in the pool."""
WIDE_JAW = 0.2
"""Radians up to which other jaws are opened."""


class HeadBatch(NamedTuple):
    """A batch of heads to synthesise.

    Attributes:
        shape: FLAME's identity.
        motions: of the photo, and of driving frame and target.
        cameras: labels of the cameras of photo, driving frame and target.
        moves: whether the two motions differ.
        position: place of each sample in the endless stream of training samples.
    """

    shape: Float[Tensor, "batch 300"]
    motions: Float[Tensor, "batch 2 112"]
    cameras: Float[Tensor, "batch 3 25"]
    moves: Bool[Tensor, " batch"]
    position: Int[Tensor, " batch"]


class ParameterPools(Dataset[HeadBatch]):
    """Random heads, motions and cameras.

    Indexed by ``(position, row of shape)``: every draw is a function of ``seed`` and ``position``. Necks are straight.
    Gaze is drawn for itself, from all frames of videos (or, without any, of photos); half of the jaws are opened at
    random; half of the cameras come from the pool, half are :func:`random_views`.

    Args:
        root: folder of the pools.
        static: leave every head's motion as it is in the photo. Otherwise this is so in half of the samples, at odd
            positions; the others' motions are two frames of a video.
        seed: seed of all draws.

    Raises:
        MediaError: if a pool is missing.
        ZooError: if a file is none.
    """

    def __init__(self, root: str, static: bool = False, seed: int = 0) -> None:
        self.static, self.seed = static, seed
        self.rows = torch.cat([load_rows(path, SHAPE_ROW) for path in _files(root, SHAPES)])
        photos, self.clips = [], []
        for path in _files(root, MOTIONS):
            rows = load_rows(path, MOTION_SIZE)
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            if len(shape) == 2 or shape[-2] == 1 or path.name.startswith(PHOTOS):
                photos.append(rows)
            else:
                self.clips += list(rows.unflatten(0, (-1, shape[-2])))
        if not self.clips and not static:
            raise MediaError(
                f"{root} has motions of photos alone: moving heads need those of videos, [clips, frames, 112]"
            )
        moving = torch.cat(self.clips) if self.clips else torch.cat(photos)
        self.gazes = moving[:, EYES]
        self.still = torch.cat(photos) if photos else moving

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> HeadBatch:
        position, index = key
        draw = numpy_generator(self.seed, position)
        moves = not self.static and position % 2 == 0
        if moves:
            clip = self.clips[draw.integers(len(self.clips))]
            motions = clip[torch.from_numpy(draw.integers(len(clip), size=2))].clone()
            motions[:, EYES] = self.gazes[torch.from_numpy(draw.integers(len(self.gazes), size=2))]
        else:
            motion = self.still[draw.integers(len(self.still))].clone()
            motion[EYES] = self.gazes[draw.integers(len(self.gazes))]
            motions = motion.repeat(2, 1)
        motions[:, NECK] = 0
        opened = torch.from_numpy(draw.uniform(0, WIDE_JAW, size=2)).float()
        kept = torch.from_numpy(draw.random(2) < OWN_JAW)
        if not moves:
            opened, kept = opened[:1].expand(2), kept[:1].expand(2)
        motions[:, JAW] = torch.where(kept, motions[:, JAW], opened)
        pooled = self.rows[torch.from_numpy(draw.integers(len(self.rows), size=VIEWS)), :LABEL_SIZE]
        drawn = label_of_camera(random_views(torch.from_numpy(draw.random((VIEWS, NUMBERS))).float()))
        own = torch.from_numpy(draw.random(VIEWS) < OWN_CAMERA)
        return HeadBatch(
            shape=self.rows[index, LABEL_SIZE:],
            motions=motions,
            cameras=torch.where(own[:, None], pooled, drawn),
            moves=torch.tensor(moves),
            position=torch.tensor(position),
        )


class PoolsDataModule(StreamDataModule):
    """Parameter pools as batches of heads to synthesise.

    Args:
        root: folder of the pools.
        batch_size: heads of one update, over all devices; the number of devices must divide it.
        num_workers: processes that draw, per device.
        static: as in :class:`ParameterPools`.
        heads_per_epoch: heads after which the trainer counts an epoch; None: as many as there are shapes.
        val_root: pools of other heads. Training validates on them after every epoch; ``zoo validate`` and ``zoo test``
            take ``root`` where there are none.
        predictions: clips that ``zoo predict`` draws, of the first held-out (or else training) heads.
        seed: seed of shuffling and of all draws.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 32,
        num_workers: int = 1,
        static: bool = False,
        heads_per_epoch: int | None = None,
        val_root: str | None = None,
        predictions: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(root, batch_size, num_workers, heads_per_epoch, None, val_root, predictions, seed)
        self.static = static

    def open(self, root: str, training: bool) -> ParameterPools:
        """Heads of the pools of a folder.

        Raises:
            ZooError: if they cannot be used.
        """
        return ParameterPools(root, self.static, self.seed)

    def predict_dataloader(self) -> DataLoader[HeadBatch]:  # type: ignore[override]
        """The first heads."""
        heads = self.open(self.val_root or self.root, training=False)
        chosen = [heads[place, place % len(heads)] for place in range(self.predictions)]
        return DataLoader(chosen, batch_size=1)  # type: ignore[arg-type]


def _files(root: str, pattern: str) -> list[Path]:
    found = sorted(Path(root).glob(pattern))
    if not found:
        raise MediaError(f"{root} holds no {pattern}: take the files beside GenHead's weights, or prepare data")
    return found
