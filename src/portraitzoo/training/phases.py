"""Adversarial training in phases, each with a loss and an optimiser step of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.training import draws
from portraitzoo.training.ema import averaged_copy, update_average
from portraitzoo.training.gradients import sanitise_gradients, training_only
from portraitzoo.training.optimisers import lazy_adam
from portraitzoo.training.pretrained import Pretrained
from portraitzoo.training.schedules import ema_beta

Sizes = TypeVar("Sizes")
JudgeSizes = TypeVar("JudgeSizes")


@dataclasses.dataclass(frozen=True)
class PhaseLoss:
    """Loss of one phase.

    Attributes:
        parts: weighted parts by name (``image``, ``video``, a regulariser's); the loss is their sum.
        observed: quantities worth logging (scores, penalties, generated images), detached.
    """

    parts: Mapping[str, Float[Tensor, ""]]
    observed: dict[str, Tensor]

    @property
    def total(self) -> Float[Tensor, ""]:
        """The loss to differentiate."""
        return torch.stack(list(self.parts.values())).sum()


class PhasedTraining(LightningModule):
    """Training of a generator against one or more discriminators (StyleGAN2's lazy regularisation).

    One update is four phases: the generator's loss, its regulariser (every ``generator_interval`` updates), the
    discriminators' loss, their regulariser (every ``discriminator_interval`` updates); then the average of the weights
    moves. A family says what the losses are and what is random in them; random numbers of a sample follow from
    ``seed``, the phase and the sample's place in the stream of samples.

    Checkpoints hold plain values only: ``state_dict`` with ``generator.*`` (in training), ``generator_ema.*`` (its
    average, the one to use), the discriminators and ``num_samples`` (samples seen);
    ``portraitzoo`` says what the weights are: the family and the fields of the configurations.

    Args:
        config: dataclass with the sizes of the generator.
        discriminator_config: that of the discriminators.
        generator: in training.
        discriminators: what judges its samples, by the name that each has in checkpoints (``image_discriminator``).
        generator_lr: Adam's learning rate of the generator, before the scaling for lazy regularisation.
        discriminator_lr: that of all discriminators.
        generator_interval: updates per generator regularisation.
        discriminator_interval: updates per discriminator regularisation.
        ema_half_life: samples, per 32 of the batch, after which old weights count one half in the average.
        ema_rampup: the half life is at most this share of the samples seen; None switches this off.
        device_batch: samples that a device takes at a time; the gradients of the rest of its batch are added up. None
            takes all at once.
        init_from: what the weights start from, for the record.
        seed: seed of all draws.
    """

    FAMILY: ClassVar[str]
    num_samples: Tensor

    def __init__(
        self,
        *,
        config: Any,
        discriminator_config: Any,
        generator: nn.Module,
        discriminators: Mapping[str, nn.Module],
        generator_lr: float,
        discriminator_lr: float,
        generator_interval: int,
        discriminator_interval: int,
        ema_half_life: float,
        ema_rampup: float | None,
        init_from: str | None,
        seed: int,
        device_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.discriminator_config = config, discriminator_config
        self.generator = generator
        self._judges = tuple(discriminators)
        for name, judge in discriminators.items():
            self.add_module(name, judge)
        self.generator_ema = averaged_copy(generator)
        self.register_buffer("num_samples", torch.zeros((), dtype=torch.int64))
        self.generator_lr, self.discriminator_lr = generator_lr, discriminator_lr
        self.generator_interval, self.discriminator_interval = generator_interval, discriminator_interval
        self.ema_half_life, self.ema_rampup = ema_half_life, ema_rampup
        self.init_from, self.seed, self.device_batch = init_from, seed, device_batch

    def generator_main(self, batch: Any) -> PhaseLoss:
        """Loss of the generator."""
        raise TypeError(f"{type(self).__name__} has no loss of the generator")

    def generator_regulariser(self, batch: Any) -> PhaseLoss:
        """Regulariser of the generator, times its interval."""
        raise TypeError(f"{type(self).__name__} has no regulariser of the generator")

    def discriminator_main(self, batch: Any) -> PhaseLoss:
        """Loss of the discriminators."""
        raise TypeError(f"{type(self).__name__} has no loss of the discriminators")

    def discriminator_regulariser(self, batch: Any) -> PhaseLoss:
        """Regulariser of the discriminators, times its interval."""
        raise TypeError(f"{type(self).__name__} has no regulariser of the discriminators")

    def validation_loss(self, batch: Any) -> PhaseLoss:
        """The discriminators' loss of held-out samples beside samples of the averaged generator; without gradients."""
        raise TypeError(f"{type(self).__name__} cannot be validated")

    def schedule(self, batch: Any) -> dict[str, float]:
        """Values of the family's schedules at this update, for the log."""
        raise TypeError(f"{type(self).__name__} has no schedules")

    def moving_averages(self) -> list[Tensor]:
        """Buffers that move with the samples of this device; they are averaged over the devices."""
        raise TypeError(f"{type(self).__name__} does not say which of its buffers move")

    def judging(self) -> bool:
        """Whether the discriminators take part in this update; before they do they rest."""
        return True

    def record(self) -> dict[str, Any]:
        """Plain values that a checkpoint tells beside the sizes of the networks."""
        return {}

    def model(self) -> nn.Module:
        """The averaged generator as its users meet it; the weights are shared."""
        raise TypeError(f"{type(self).__name__} has no model to hand out")

    @contextmanager
    def update_context(self, update: int) -> Iterator[None]:
        """Within which all phases of an update run."""
        yield

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator and for the discriminators, corrected for lazy regularisation (StyleGAN2, B)."""
        discriminators = [parameter for judge in self._discriminators() for parameter in judge.parameters()]
        return [
            lazy_adam(self.generator.parameters(), self.generator_lr, self.generator_interval),
            lazy_adam(discriminators, self.discriminator_lr, self.discriminator_interval),
        ]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One update: the four phases, then the average of the weights."""
        update = self.global_step
        schedule = self.schedule(batch)
        generator, discriminators = self._optimisers()
        networks, judges = [self.generator], self._discriminators()
        with self.update_context(update):
            with training_only(networks, judges):
                self._phase("generator", generator, self.generator_main, batch, counts=True)
                if update % self.generator_interval == 0:
                    self._phase("generator_regulariser", generator, self.generator_regulariser, batch)
            if self.judging():
                with training_only(judges, networks):
                    self._phase("discriminator", discriminators, self.discriminator_main, batch)
                    if update % self.discriminator_interval == 0:
                        self._phase("discriminator_regulariser", discriminators, self.discriminator_regulariser, batch)
        self._average_over_devices(self.moving_averages())
        self._finish_update(schedule, len(batch.position) * self.trainer.world_size)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Scores of held-out pairs beside those of pairs of the averaged generator; draws are the same every time."""
        self.report("validation", self.validation_loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As in validation; metrics come with the callback of :mod:`portraitzoo.training.evaluation`."""
        self.report("test", self.validation_loss(batch))

    def predict_step(self, batch: Int[Tensor, " seeds"], batch_idx: int) -> Int[Tensor, " seeds"]:
        """Draw the clip of each seed into the run's ``predictions`` folder; those that are there are kept."""
        for seed in batch.tolist():
            path = Path(self.trainer.default_root_dir) / "predictions" / f"{seed:06d}.mp4"
            if not path.exists():
                self.model().sample(seed=seed).save(path)  # type: ignore[operator]
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, in plain values."""
        checkpoint["portraitzoo"] = {
            "family": self.FAMILY,
            "network": dataclasses.asdict(self.config),
            "discriminator": dataclasses.asdict(self.discriminator_config),
            "init_from": self.init_from,
            "seed": self.seed,
            **self.record(),
        }

    def generators(self, purpose: int, batch: Any) -> list[torch.Generator]:
        """A generator of random numbers for each sample of the batch, on this device."""
        return draws.generators((self.seed, purpose), batch.position.tolist(), self.device)

    def report(self, phase: str, loss: PhaseLoss) -> None:
        """Log a loss, its parts and the means of what was observed."""
        on_bar = phase in ("generator", "discriminator")
        self.log(f"{phase}/loss", loss.total.detach(), prog_bar=on_bar, sync_dist=True)
        self.log_dict({f"{phase}/{name}": part.detach() for name, part in loss.parts.items()}, sync_dist=True)
        means = {f"{phase}/{name}": value.mean() for name, value in loss.observed.items() if value.ndim < 3}
        self.log_dict(means, sync_dist=True)

    def _phase(
        self,
        name: str,
        optimiser: LightningOptimizer,
        phase: Callable[[Any], PhaseLoss],
        batch: Any,
        counts: bool = False,
    ) -> None:
        optimiser.zero_grad()
        size = len(batch.position)
        for part in self._parts(batch):
            loss = phase(part)
            self.manual_backward(loss.total * (len(part.position) / size))
        for group in optimiser.param_groups:
            sanitise_gradients(group["params"])
        # Lightning counts every step of its own wrapper as a global step; an update is to count once.
        (optimiser if counts else optimiser.optimizer).step()
        self.report(name, loss)

    def _parts(self, batch: Any) -> Iterator[Any]:
        size, group = self.device_batch or len(batch.position), self.discriminator_config.group_size
        for first in range(0, len(batch.position), size):
            part = type(batch)(*(value[first : first + size] for value in batch))
            clips = len(part.position)
            if any(rows > group and rows % group for rows in (clips, 2 * clips)):
                raise ZooError(
                    f"minibatch deviations are taken over groups of {group}, which do not divide the {clips} clips (or "
                    f"their {2 * clips} frames) that a device takes at a time: change batch_size or group_size"
                )
            yield part

    def _finish_update(self, schedule: dict[str, float], batch: int) -> None:
        beta = ema_beta(int(self.num_samples), batch, self.ema_half_life, self.ema_rampup)
        update_average(self.generator_ema, self.generator, beta)
        self.num_samples += batch
        values = schedule | {"ema_beta": beta, "num_samples": float(self.num_samples)}
        self.log_dict({f"schedule/{name}": float(value) for name, value in values.items()})

    def _average_over_devices(self, values: Iterable[Tensor]) -> None:
        if self.trainer.world_size > 1:
            for value in values:
                value.copy_(self.trainer.strategy.reduce(value.clone(), reduce_op="mean"))

    def _discriminators(self) -> list[nn.Module]:
        return [self.get_submodule(name) for name in self._judges]

    def _optimisers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        optimisers = self.optimizers()
        assert isinstance(optimisers, list)
        return optimisers[0], optimisers[1]


def starting_sizes(
    start: Pretrained | None,
    network: Sizes | None,
    discriminator: JudgeSizes | None,
    kinds: tuple[type[Sizes], type[JudgeSizes]],
    judge: str = "image_discriminator",
) -> tuple[Sizes, JudgeSizes]:
    """Sizes of the networks of a run: as given, else those of what it starts from, else the family's own.

    Args:
        start: what the run starts from.
        network: sizes of the generator, if given.
        discriminator: sizes of the discriminators, if given.
        kinds: dataclasses of both. That of the discriminators has a classmethod ``of``, which reads them off an image
            discriminator's tensors, and ``beside``, which makes them fit a generator.
        judge: name of that discriminator in checkpoints.

    Raises:
        CheckpointError: if the tensors to start from are not those of a discriminator.
    """
    sizes, judge_sizes = kinds
    network = network or sizes(**(start.network if start else {}))
    if discriminator is None and start and start.discriminator:
        discriminator = judge_sizes(**start.discriminator)
    if discriminator is None and start:
        prefix = f"{judge}."
        own = {name.removeprefix(prefix): tensor for name, tensor in start.tensors.items() if name.startswith(prefix)}
        discriminator = judge_sizes.of(own) if own else None  # type: ignore[attr-defined]
    return network, discriminator or judge_sizes.beside(network)  # type: ignore[attr-defined]
