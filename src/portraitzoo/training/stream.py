"""The endless stream of training samples, the same for any number of processes and after any interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from portraitzoo.errors import ZooError
from portraitzoo.training.draws import numpy_generator


class SampleStream(DistributedSampler[Any]):
    """This process's part of the endless stream of training samples, as pairs (position, item of the data set).

    The stream is one shuffled pass over the data set after another. Update k takes the positions ``k * batch_size`` and
    following, each process a contiguous part, so that any number of processes sees the same samples at update k.

    Args:
        dataset: anything with a length.
        batch_size: samples of one update, over all processes.
        length: samples of one epoch of the trainer, over all processes.
        start: tells the position to go on from when an epoch begins.
        rank: this process.
        world_size: number of processes; must divide ``batch_size``.
        seed: seed of the shuffles.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        length: int,
        start: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, seed=seed)
        self.batch_size, self.length, self.start = batch_size, length, start

    def __len__(self) -> int:
        return max(self.length // self.batch_size, 1) * self.batch_size // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        share = self.batch_size // self.num_replicas
        first = self.start() + self.rank * share
        items = len(self.dataset)  # type: ignore[arg-type]
        for block in range(len(self) // share):
            for position in range(first + block * self.batch_size, first + block * self.batch_size + share):
                turn, place = divmod(position, items)
                yield position, int(self._order(turn)[place])

    @lru_cache(maxsize=2)  # noqa: B019 - two passes of one sampler, which lives as long as the run
    def _order(self, turn: int) -> Int[np.ndarray, " items"]:
        return numpy_generator(self.seed, turn).permutation(len(self.dataset))  # type: ignore[arg-type]


class StreamLoader(DataLoader[Any]):
    """Loader of a :class:`SampleStream`, whose place follows from the trainer's step: it needs no state of its own."""

    def state_dict(self) -> dict[str, object]:
        """Nothing; its presence tells Lightning that stopping within an epoch is safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Nothing to load."""


class StreamDataModule(LightningDataModule):
    """Training clips as an endless stream, held-out ones for validation, seeds for prediction.

    A family adds :meth:`open`, which turns a folder into a data set indexed by ``(position, item)``.

    Args:
        root: the training data.
        batch_size: samples of one update, over all devices; the number of devices must divide it.
        num_workers: processes that decode, per device.
        samples_per_epoch: samples after which the trainer counts an epoch; None: as many as there are.
        image_resolution: side of the frames in pixels; None takes that of the network in training.
        val_root: data that training does not see; ``zoo validate`` and ``zoo test`` take ``root`` where there is none.
        predictions: clips that ``zoo predict`` draws, of the seeds from 0 on.
        seed: seed of shuffling and of all draws.
    """

    def __init__(
        self,
        root: str,
        batch_size: int,
        num_workers: int,
        samples_per_epoch: int | None,
        image_resolution: int | None,
        val_root: str | None,
        predictions: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.root, self.val_root, self.predictions, self.seed = root, val_root, predictions, seed
        self.batch_size, self.num_workers, self.samples_per_epoch = batch_size, num_workers, samples_per_epoch
        self.image_resolution = image_resolution
        self.dataset: Dataset[Any] | None = None
        self.held_out: Dataset[Any] | None = None

    def open(self, root: str, training: bool) -> Dataset[Any]:
        """The data set of a folder; what only training does to samples (flips) is left out without ``training``."""
        raise TypeError(f"{type(self).__name__} does not say what its data are")

    def setup(self, stage: str | None = None) -> None:
        """Find and check the data.

        Raises:
            MediaError: naming the first clip that cannot be used.
            ZooError: if the number of devices does not divide the batch.
        """
        if self.dataset is not None or stage == "predict":
            return
        devices = self.trainer.world_size if self.trainer else 1
        if self.batch_size < 1 or self.batch_size % devices:
            raise ZooError(
                f"a batch of {self.batch_size} clips cannot be split over {devices} devices: change batch_size"
            )
        if stage in ("fit", None):
            self.dataset = self.open(self.root, training=True)
        held_out = self.val_root or (None if stage in ("fit", None) else self.root)
        if held_out is not None:
            self.held_out = self.open(held_out, training=False)

    def train_dataloader(self) -> StreamLoader:
        """Batches of training samples, from the one that the trainer's step says on."""
        assert self.dataset is not None and self.trainer is not None
        trainer = self.trainer
        sampler = SampleStream(
            self.dataset,
            self.batch_size,
            self.samples_per_epoch or len(self.dataset),  # type: ignore[arg-type]
            start=lambda: trainer.global_step * self.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            seed=self.seed,
        )
        return StreamLoader(
            self.dataset,
            batch_size=self.batch_size // trainer.world_size,
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """One sample of every held-out item, the same ones every time; nothing where nothing is held out.

        Batches are powers of two, so that minibatch deviations come out even; a rest that fills none is left out.
        """
        if self.held_out is None:
            return []
        devices = self.trainer.world_size if self.trainer else 1
        samples = [self.held_out[place, place] for place in range(len(self.held_out))]  # type: ignore[arg-type]
        size = 1 << (min(self.batch_size // devices, len(samples)).bit_length() - 1)
        return DataLoader(samples, batch_size=size, drop_last=True)  # type: ignore[arg-type]

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The same as for validation."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[int]:
        """Seeds."""
        return DataLoader(range(self.predictions), batch_size=1)  # type: ignore[arg-type]

    def resolution(self) -> int:
        """Side of the frames: as given, or that of the network in training.

        Raises:
            ZooError: if neither is known.
        """
        if self.image_resolution:
            return self.image_resolution
        config = getattr(self.trainer.lightning_module, "config", None) if self.trainer else None
        if config is None:
            raise ZooError("image_resolution is not known before a model is: give it")
        return int(config.image_resolution)
