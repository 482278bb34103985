"""Metrics of the generator in training, every so many updates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from portraitzoo.errors import WeightsUnavailableError, ZooError
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.features import Weights
from portraitzoo.metrics.measures import measures_named, prepared
from portraitzoo.metrics.protocols import get_protocol


@runtime_checkable
class HasModel(Protocol):
    """A training module that can hand out the model that it trains, ready to sample."""

    def model(self) -> nn.Module:
        """The user-facing model around the averaged weights (shared, not copied)."""


class Evaluation(Callback):
    """Measure the averaged generator against real clips; the numbers are logged as ``eval/METRIC``.

    The whole report of each evaluation lies in ``evaluation/UPDATE/`` of the run's folder. On several devices each
    process takes its share of the clips. ``zoo test`` measures once.

    Args:
        real: folder of real clips, or saved statistics, best of clips that training does not see; None takes the clips
            of training themselves, as PV3D does.
        every: updates between two evaluations.
        metrics: see :func:`portraitzoo.metrics.evaluation.evaluate`.
        num_clips: clips on each side.
        features: ``official`` feature networks, or ``random`` ones (offline, comparable with nothing else). Training
            goes on unmeasured, with a warning, where the official ones cannot be had.

    Raises:
        ZooError: when training starts, if the module has no ``model()``.
    """

    def __init__(
        self,
        real: str | None = None,
        every: int = 6000,
        metrics: Sequence[str] = ("fvd",),
        num_clips: int = 256,
        features: Weights = "official",
    ) -> None:
        self.real, self.every, self.metrics, self.num_clips, self.features = real, every, metrics, num_clips, features

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module that cannot be evaluated before hours are spent."""
        self._prepare(trainer, pl_module)
        self._measurable = True
        try:
            prepared(
                measures_named(self.metrics), get_protocol("quick"), self.features, torch.device("cpu"), batch_size=1
            )
        except WeightsUnavailableError as error:
            self._measurable = False
            rank_zero_warn(f"{', '.join(self.metrics)} will not be measured while training: {error}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate when it is time."""
        if trainer.global_step % self.every == 0 and self._measurable:
            self._measure(trainer, pl_module, f"{trainer.global_step:06d}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate once."""
        self._prepare(trainer, pl_module)
        self._measure(trainer, pl_module, "test")

    def _prepare(self, trainer: Trainer, module: LightningModule) -> None:
        if not isinstance(module, HasModel):
            raise ZooError(f"{type(module).__name__} hands out no model to evaluate: remove the callback")
        self.real = self.real or getattr(getattr(trainer, "datamodule", None), "root", None)
        if self.real is None:
            raise ZooError("evaluation in a recipe needs real clips: give the callback `real`")

    def _measure(self, trainer: Trainer, module: LightningModule, folder: str) -> None:
        assert isinstance(module, HasModel) and self.real is not None
        report = evaluate(
            module.model(),
            self.real,
            metrics=list(self.metrics),
            num_clips=self.num_clips,
            features=self.features,
            device=module.device,
            out=Path(trainer.default_root_dir) / "evaluation" / folder,
        )
        module.log_dict({f"eval/{name}": float(value) for name, value in report.values.items()}, rank_zero_only=True)
