"""A picture of what the generator makes, every so many updates."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import UInt8
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.images import write_image
from portraitzoo.media.sheets import contact_sheet


@runtime_checkable
class DrawsSamples(Protocol):
    """A training module that can show its samples, the same ones every time."""

    def sample_grid(self, rows: int, columns: int) -> UInt8[Tensor, "rows columns height width 3"]:
        """One subject a row; views and times along the columns."""


class SampleGrid(Callback):
    """Write ``samples/UPDATE.png`` in the run's folder, and the same picture to TensorBoard.

    Args:
        every: updates between two pictures; the first one is drawn before training.
        rows: subjects.
        columns: views and times of each.
    """

    def __init__(self, every: int = 200, rows: int = 4, columns: int = 6) -> None:
        self.every, self.rows, self.columns = every, rows, columns

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the untrained generator.

        Raises:
            ZooError: if the module has no ``sample_grid``.
        """
        if not isinstance(pl_module, DrawsSamples):
            raise ZooError(f"{type(pl_module).__name__} draws no sample grids: remove the SampleGrid callback")
        if trainer.global_step == 0:
            self._draw(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw when it is time."""
        if trainer.global_step % self.every == 0:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, DrawsSamples)
        with torch.random.fork_rng():
            grid = pl_module.sample_grid(self.rows, self.columns)
        sheet = contact_sheet(grid.flatten(0, 1), columns=self.columns)
        write_image(Path(trainer.default_root_dir) / "samples" / f"{trainer.global_step:06d}.png", sheet)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", sheet.numpy(), trainer.global_step, dataformats="HWC")
