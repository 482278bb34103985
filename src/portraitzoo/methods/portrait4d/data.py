"""Portrait4D-v2's training data: two frames of a clip, of which one is the photo; the other drives and is the target.

A folder ``NAME_<resolution>_<count>`` in the authors' LMDB layout (see :mod:`portraitzoo.media.portrait_lmdb`; ``zoo
preprocess synthetic --family portrait4d`` writes one of free heads). A label is the camera that holds the whole pose of
the head (25 numbers), then FLAME's shape, expression, pose and gaze (412).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.media.images import from_uint8
from portraitzoo.media.portrait_lmdb import ClipLMDB, ClipRecord
from portraitzoo.methods.portrait4d.poses import rectified_necks
from portraitzoo.rendering.cameras import LABEL_SIZE as CAMERA_SIZE
from portraitzoo.training.draws import numpy_generator
from portraitzoo.training.stream import StreamDataModule

Motion = Literal["embedding", "head"]
"""What drives: motion embeddings of the records, or the head's own expression, jaw and gaze (109 numbers)."""

NECK, JAW = CAMERA_SIZE + 400, CAMERA_SIZE + 403
EMBEDDING = 548


class FramePairBatch(NamedTuple):
    """A batch of photos and driving frames of the same people.

    Attributes:
        source: photos in [-1, 1].
        driving: driving frames, which are the targets.
        mask: of the heads in these, in [-1, 1].
        source_label: camera and head parameters of the photos,
        driving_label: and of the driving frames; the necks are those of :func:`rectified_necks`.
        source_motion: motion embeddings of the photos,
        driving_motion: and of the driving frames.
        position: place of each sample in the endless stream of training samples.
    """

    source: Float[Tensor, "batch 3 height width"]
    driving: Float[Tensor, "batch 3 height width"]
    mask: Float[Tensor, "batch 1 height width"]
    source_label: Float[Tensor, "batch 437"]
    driving_label: Float[Tensor, "batch 437"]
    source_motion: Float[Tensor, "batch motion_dim"]
    driving_motion: Float[Tensor, "batch motion_dim"]
    position: Int[Tensor, " batch"]


class FramePairs(Dataset[FramePairBatch]):
    """Two frames of each clip (Deng et al., ECCV 2024, section 3.2).

    Indexed by ``(position, clip)``: every draw is a function of ``seed`` and ``position``, whoever makes it.

    Args:
        root: LMDB folder of clips.
        resolution: side that the frames must have, pixels.
        motion: what drives.
        rectify: take the mean turn and tilt out of the necks of each clip.
        max_clips: use the first clips only; None for all.
        in_memory: read all clips once, now, and keep them.
        seed: seed of all draws.

    Raises:
        MediaError: for a folder that is no such set, has frames of another size, or (reading) lacks embeddings.
    """

    def __init__(
        self,
        root: str,
        resolution: int,
        motion: Motion = "embedding",
        rectify: bool = True,
        max_clips: int | None = None,
        in_memory: bool = False,
        seed: int = 0,
    ) -> None:
        self.clips = ClipLMDB(root)
        self.motion: Motion = motion
        self.rectify, self.seed = rectify, seed
        self._count = min(len(self.clips), max_clips or len(self.clips))
        if self.clips.resolution != resolution:
            raise MediaError(
                f"{root} holds frames of {self.clips.resolution} pixels, the network wants {resolution}: "
                "prepare them in that size"
            )
        self._kept = [self._read(index) for index in range(self._count)] if in_memory else None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: tuple[int, int]) -> FramePairBatch:
        position, index = key
        kept = None if self._kept is None else self._kept[index]
        count = len(self.clips.labels(index) if kept is None else kept.images)
        first, second = numpy_generator(self.seed, position).integers(count, size=2).tolist()
        clip = self._read(index, (first, second)) if kept is None else kept
        source, driving = (0, 1) if kept is None else (first, second)
        return FramePairBatch(
            source=from_uint8(clip.images[source][None])[0],
            driving=from_uint8(clip.images[driving][None])[0],
            mask=from_uint8(clip.segmentations[driving][None])[0].mean(dim=0, keepdim=True),
            source_label=clip.labels[source],
            driving_label=clip.labels[driving],
            source_motion=clip.motions[source],
            driving_motion=clip.motions[driving],
            position=torch.tensor(position),
        )

    def _read(self, index: int, frames: tuple[int, int] | None = None) -> ClipRecord:
        """A clip, or two frames of it, with the labels and motions that the network wants."""
        clip = self.clips[index] if frames is None else self.clips.frames(index, frames)
        labels = clip.labels.clone()
        own = self.motion == "head"
        motions = FlameParameters.from_label(labels[:, CAMERA_SIZE:]).motion() if own else clip.motions[:, :EMBEDDING]
        if motions.shape[1] == 0:
            raise MediaError(
                f"clip {index} of {self.clips.path} has no motion embeddings: write them, or let the head's own "
                "parameters drive (motion: head)"
            )
        if self.rectify:
            necks = rectified_necks(self.clips.labels(index)[:, NECK:JAW])  # by those of all frames
            labels[:, NECK:JAW] = necks if frames is None else necks[list(frames)]
        return ClipRecord(clip.images, clip.segmentations, labels, motions)


class Portrait4DDataModule(StreamDataModule):
    """Clips of an LMDB folder as batches of frame pairs.

    Args:
        root: folder of clips, called ``NAME_<resolution>_<count>``.
        batch_size: pairs of one update, over all devices; the number of devices must divide it.
        num_workers: processes that read, per device.
        image_resolution: side of the frames in pixels; None takes that of the network in training.
        motion: ``embedding``: the records' motion embeddings drive (548 numbers, as published); ``head``: expression,
            jaw and gaze of the head do (109 numbers), which needs no motion encoder.
        rectify: take the mean turn and tilt out of the necks of each clip, as published.
        max_clips: use the first clips only.
        in_memory: read all clips once and keep them (for small sets).
        pairs_per_epoch: pairs after which the trainer counts an epoch; None: as many as there are clips.
        val_root: data that training does not see. Training validates on them after every epoch; ``zoo validate`` and
            ``zoo test`` take ``root`` where there is none.
        predictions: clips that ``zoo predict`` draws, of the first held-out (or else training) clips.
        seed: seed of shuffling and of the choice of frames.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 32,
        num_workers: int = 8,
        image_resolution: int | None = None,
        motion: Motion = "embedding",
        rectify: bool = True,
        max_clips: int | None = None,
        in_memory: bool = False,
        pairs_per_epoch: int | None = None,
        val_root: str | None = None,
        predictions: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(root, batch_size, num_workers, pairs_per_epoch, image_resolution, val_root, predictions, seed)
        self.motion: Motion = motion
        self.rectify, self.max_clips, self.in_memory = rectify, max_clips, in_memory

    def open(self, root: str, training: bool) -> FramePairs:
        """Pairs of the clips of a folder.

        Raises:
            MediaError: if it cannot be used.
        """
        limit = self.max_clips if training else None
        return FramePairs(root, self.resolution(), self.motion, self.rectify, limit, self.in_memory, self.seed)

    def predict_dataloader(self) -> DataLoader[FramePairBatch]:  # type: ignore[override]
        """A photo of each of the first clips.

        Raises:
            ZooError: if there are fewer.
        """
        clips = self.open(self.val_root or self.root, training=False)
        if len(clips) < self.predictions:
            raise ZooError(f"{clips.clips.path} holds {len(clips)} clips: set predictions to at most that")
        return DataLoader([clips[place, place] for place in range(self.predictions)], batch_size=1)  # type: ignore[arg-type]
