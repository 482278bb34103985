"""Training PV3D: one update of generator and discriminators, and everything that it needs to be resumed.

A run's folder (``trainer.default_root_dir``) holds::

    config.yaml               the recipe as run (written by LightningCLI)
    history.jsonl             losses, scores and schedules, one line per logged update
    events.out.tfevents.*     the same and the sample grids, for TensorBoard
    samples/UPDATE.png        sample grids of the averaged generator
    evaluation/UPDATE/        reports of the metrics, where the recipe has them measured
    predictions/SEED.mp4      clips of `zoo predict`
    checkpoints/last.ckpt     everything that resuming needs; beside it older ones

A checkpoint is a Lightning checkpoint of plain values: ``state_dict`` holds ``generator.*`` (in training),
``generator_ema.*`` (its average, the one to use), ``image_discriminator.*``, ``video_discriminator.*`` and
``num_samples`` (clips seen); ``portraitzoo`` is ``{"family": "pv3d", "network": {...}, "discriminator": {...}, ...}``
with the fields of the configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, UInt8
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from portraitzoo.media.images import to_uint8
from portraitzoo.methods.pv3d.data import PairBatch
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.model import PV3D
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig
from portraitzoo.methods.pv3d.objective import Draws, LossWeights, Noise, Objective, PhaseLoss, Stage
from portraitzoo.rendering.cameras import LEVEL, Camera
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training import draws
from portraitzoo.training.ema import averaged_copy, update_average
from portraitzoo.training.gradients import sanitise_gradients, training_only
from portraitzoo.training.optimisers import lazy_adam
from portraitzoo.training.pretrained import Pretrained, load_fitting, read_pretrained
from portraitzoo.training.schedules import Schedules, ema_beta

GMAIN, GREG, DMAIN, DENSITY, BACKBONE_NOISE = range(5)
"""Purposes of random draws; the first three also number the camera pairs of a batch."""

LOW_PRECISION_BLOCKS = 4
"""Resolutions of a discriminator, from the largest, that may be computed in a lower precision."""

DENSITY_POINTS = 1000
"""Points per frame at which the density regulariser looks."""


class PV3DTraining(LightningModule):
    """Adversarial training of PV3D (Xu et al., ICLR 2023, section 3.4).

    All random numbers of an update follow from ``seed``, the update and each sample's place in the stream of samples:
    resumed runs and runs on several devices draw as an undisturbed single one. Two things do depend on how the batch
    is split over devices, as published: the groups of the minibatch standard deviation, and whose cameras a swap takes.

    Args:
        network: sizes of the generator; None takes those of ``init_from`` (or the official ones).
        discriminator: sizes of the discriminators; None takes those of ``init_from``, else the generator's.
        init_from: what to start from: an entry of the index, a folder in our format, or a run's checkpoint. The
            generator starts from the averaged weights unless the raw ones are there too; so do the discriminators.
        losses: weights of the losses.
        schedules: fades of blur, camera swapping and render resolution.
        generator_lr: Adam's learning rate of the generator, before the scaling for lazy regularisation.
        discriminator_lr: that of both discriminators.
        generator_interval: updates per density regularisation.
        discriminator_interval: updates per R1 regularisation.
        ema_half_life: samples, per 32 of the batch, after which old weights count one half in the average.
        ema_rampup: the half life is at most this share of the samples seen; null switches this off.
        noise: noise of the backbone in training.
        low_precision: number format of the super-resolution and of the discriminators' large blocks on a GPU.
        seed: seed of all draws.

    Raises:
        CheckpointError: if ``init_from`` does not fit ``network`` or ``discriminator``.
        ZooError: if ``init_from`` is unknown.
    """

    num_samples: Tensor
    generator_ema: Generator

    def __init__(
        self,
        network: PV3DConfig | None = None,
        discriminator: DiscriminatorConfig | None = None,
        init_from: str | None = None,
        losses: LossWeights = LossWeights(),  # noqa: B008 - frozen
        schedules: Schedules = Schedules(),  # noqa: B008 - frozen
        generator_lr: float = 0.0025,
        discriminator_lr: float = 0.002,
        generator_interval: int = 4,
        discriminator_interval: int = 16,
        ema_half_life: float = 10_000,
        ema_rampup: float | None = 0.05,
        noise: Noise = "random",
        low_precision: Literal["bf16", "fp16"] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        start = read_pretrained(init_from, "pv3d") if init_from else None
        network = network or PV3DConfig(**(start.network if start else {}))
        if discriminator is None:
            discriminator = _discriminator_of(start) if start else None
        discriminator = discriminator or DiscriminatorConfig.beside(network)
        self.config, self.discriminator_config = network, discriminator
        self.generator = Generator(network)
        self.image_discriminator = ImageDiscriminator(discriminator)
        self.video_discriminator = VideoDiscriminator(discriminator)
        self.generator_ema = averaged_copy(self.generator)
        if start:
            load_fitting(self, start)
        if low_precision:
            self._lower_precision(torch.bfloat16 if low_precision == "bf16" else torch.float16)
        self.register_buffer("num_samples", torch.zeros((), dtype=torch.int64))

        self.init_from, self.losses, self.schedules, self.seed = init_from, losses, schedules, seed
        self.generator_lr, self.discriminator_lr = generator_lr, discriminator_lr
        self.generator_interval, self.discriminator_interval = generator_interval, discriminator_interval
        self.ema_half_life, self.ema_rampup = ema_half_life, ema_rampup
        self.objective = Objective(
            self.generator,
            self.image_discriminator,
            self.video_discriminator,
            losses,
            generator_interval,
            discriminator_interval,
            noise,
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator and for both discriminators, corrected for lazy regularisation (StyleGAN2, B)."""
        discriminators = [*self.image_discriminator.parameters(), *self.video_discriminator.parameters()]
        return [
            lazy_adam(self.generator.parameters(), self.generator_lr, self.generator_interval),
            lazy_adam(discriminators, self.discriminator_lr, self.discriminator_interval),
        ]

    def training_step(self, batch: PairBatch, batch_idx: int) -> None:
        """One update: the four phases, then the average of the weights."""
        update = self.global_step
        stage = self.stage(batch.frames.shape[0])
        real = self.objective.real_frames(batch.frames, batch.times, batch.cameras, stage)
        networks, judges = [self.generator], [self.image_discriminator, self.video_discriminator]
        optimisers = self._optimisers()
        with self._backbone_noise(update):
            with training_only(networks, judges):
                self._generator_phases(optimisers[0], batch, stage, regularise=update % self.generator_interval == 0)
            with training_only(judges, networks):
                main = self.objective.discriminator_main(self.draw(DMAIN, batch, stage), real, stage)
                self._optimise(optimisers[1], main)
                self._average_over_devices(self.generator.mapping.w_avg)
                self._report("discriminator", main)
                if update % self.discriminator_interval == 0:
                    penalty = self.objective.discriminator_regulariser(real, stage)
                    self._optimise(optimisers[1], penalty)
                    self._report("discriminator_regulariser", penalty)
        self._finish_update(stage, batch.frames.shape[0] * self.trainer.world_size)

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Scores of held-out pairs beside those of pairs of the averaged generator; draws are the same every time."""
        self._validate(batch, "validation")

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """As in validation; metrics come with the callback of :mod:`portraitzoo.training.evaluation`."""
        self._validate(batch, "test")

    def predict_step(self, batch: Int[Tensor, " seeds"], batch_idx: int) -> Int[Tensor, " seeds"]:
        """Draw the clip of each seed into the run's ``predictions`` folder; those that are there are kept."""
        for seed in batch.tolist():
            path = Path(self.trainer.default_root_dir) / "predictions" / f"{seed:06d}.mp4"
            if not path.exists():
                self.model().sample(seed=seed).save(path)
        return batch

    def stage(self, device_batch: int) -> Stage:
        """Values of the schedules now, for a batch of ``device_batch`` clips on this device."""
        samples = int(self.num_samples)
        return Stage(
            blur_sigma=self.schedules.blur(samples, device_batch, self.trainer.world_size),
            swap_probability=self.schedules.swap_probability(samples),
            render_resolution=self.schedules.render_resolution(samples, self.config.render_resolution),
        )

    def draw(self, purpose: int, batch: PairBatch, stage: Stage, rays: bool = True) -> Draws:
        """Random inputs of one phase, each sample's from its own generator on this device.

        Args:
            purpose: GMAIN, GREG or DMAIN.
            batch: gives the cameras and the samples' places in the stream.
            stage: gives the number of rays.
            rays: whether the ray sampler's numbers are wanted.
        """
        shape = (2, stage.render_resolution**2)
        codes, uniforms, jitter, importance = [], [], [], []
        for generator in self._generators(purpose, batch):
            uniform = partial(torch.rand, generator=generator, device=self.device)
            codes.append(torch.randn(2, self.config.z_dim, generator=generator, device=self.device))
            uniforms.append(uniform(3))
            if rays:
                jitter.append(uniform(*shape, self.config.depth_samples))
                importance.append(uniform(*shape, self.config.importance_samples))
        z, z_motion = torch.stack(codes).unbind(1)
        early, late, swap = torch.stack(uniforms).unbind(1)
        return Draws(
            z=z,
            z_motion=z_motion,
            times=beta_times(early, late),
            cameras=batch.generated_cameras[:, purpose],
            swap=swap,
            sampling=RaySampling(torch.cat(jitter), torch.cat(importance)) if rays else RaySampling(),
        )

    def draw_points(
        self, batch: PairBatch
    ) -> tuple[Float[Tensor, "frames points 3"], Float[Tensor, "frames points 3"]]:
        """Points, uniform in [0, 1), and standard normal offsets for the density regulariser."""
        points, offsets = [], []
        for generator in self._generators(DENSITY, batch):
            shape = (2, DENSITY_POINTS, 3)
            points.append(torch.rand(shape, generator=generator, device=self.device))
            offsets.append(torch.randn(shape, generator=generator, device=self.device))
        return torch.cat(points), torch.cat(offsets)

    def model(self) -> PV3D:
        """The averaged generator as its users meet it; the weights are shared."""
        with torch.device("meta"):
            model = PV3D(self.config)
        model.generator = self.generator_ema
        return model

    @torch.no_grad()
    def sample_grid(self, rows: int = 4, columns: int = 6) -> UInt8[Tensor, "rows columns height width 3"]:
        """Frames of the averaged generator: a seed for each row, turning and moving in time along the columns."""
        generator = draws.generator(self.seed)
        camera = Camera.look_at(torch.linspace(-0.5, 0.5, columns), LEVEL)
        label = Camera.look_at(0.0, LEVEL).label().to(self.device)[None]
        times = torch.linspace(0, 1, columns, device=self.device)
        grid = []
        for _ in range(rows):
            z, z_motion = torch.randn(2, 1, self.config.z_dim, generator=generator).to(self.device)
            ws = self.generator_ema.mapping(z, label).expand(columns, -1, -1)
            output = self.generator_ema.synthesis(
                ws,
                z_motion.expand(columns, -1),
                times,
                camera.to(self.device),
                render_resolution=self.stage(1).render_resolution,
            )
            grid.append(to_uint8(output.image).cpu())
        return torch.stack(grid)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, in plain values."""
        checkpoint["portraitzoo"] = {
            "family": "pv3d",
            "network": dataclasses.asdict(self.config),
            "discriminator": dataclasses.asdict(self.discriminator_config),
            "init_from": self.init_from,
            "losses": dataclasses.asdict(self.losses),
            "schedules": dataclasses.asdict(self.schedules),
            "seed": self.seed,
        }

    def _lower_precision(self, dtype: torch.dtype) -> None:
        """As published: the whole super-resolution, and the discriminators' four largest resolutions."""
        blocks = [*self.generator.super_resolution.blocks]
        for judge in (self.image_discriminator, self.video_discriminator):
            blocks += list(judge.blocks.values())[:LOW_PRECISION_BLOCKS]
        for block in blocks:
            block.low_precision = dtype

    def _generator_phases(
        self, optimiser: LightningOptimizer, batch: PairBatch, stage: Stage, regularise: bool
    ) -> None:
        main = self.objective.generator_main(self.draw(GMAIN, batch, stage), stage)
        self._optimise(optimiser, main, counts=True)
        self._report("generator", main)
        if regularise:
            smooth = self.objective.generator_regulariser(
                self.draw(GREG, batch, stage, rays=False), stage, *self.draw_points(batch)
            )
            self._optimise(optimiser, smooth)
            self._report("generator_regulariser", smooth)

    def _validate(self, batch: PairBatch, name: str) -> None:
        stage = self.stage(batch.frames.shape[0])
        objective = Objective(
            self.generator_ema, self.image_discriminator, self.video_discriminator, self.losses, noise="const"
        )
        real = objective.real_frames(batch.frames, batch.times, batch.cameras, stage)
        self._report(name, objective.validation(self.draw(DMAIN, batch, stage), real, stage))

    def _optimise(self, optimiser: LightningOptimizer, loss: PhaseLoss, counts: bool = False) -> None:
        optimiser.zero_grad()
        self.manual_backward(loss.total)
        for group in optimiser.param_groups:
            sanitise_gradients(group["params"])
        # Lightning counts every step of its own wrapper as a global step; an update is to count once.
        (optimiser if counts else optimiser.optimizer).step()

    def _finish_update(self, stage: Stage, batch: int) -> None:
        beta = ema_beta(int(self.num_samples), batch, self.ema_half_life, self.ema_rampup)
        update_average(self.generator_ema, self.generator, beta)
        self.num_samples += batch
        values = dataclasses.asdict(stage) | {"ema_beta": beta, "num_samples": float(self.num_samples)}
        self.log_dict({f"schedule/{name}": float(value) for name, value in values.items()})

    def _report(self, phase: str, loss: PhaseLoss) -> None:
        on_bar = phase in ("generator", "discriminator")
        self.log(f"{phase}/loss", loss.total.detach(), prog_bar=on_bar, sync_dist=True)
        self.log_dict({f"{phase}/image": loss.image.detach(), f"{phase}/video": loss.video.detach()}, sync_dist=True)
        means = {f"{phase}/{name}": value.mean() for name, value in loss.observed.items() if value.ndim < 3}
        self.log_dict(means, sync_dist=True)

    def _generators(self, purpose: int, batch: PairBatch) -> list[torch.Generator]:
        return draws.generators((self.seed, purpose), batch.position.tolist(), self.device)

    @contextmanager
    def _backbone_noise(self, update: int) -> Iterator[None]:
        """Seed the global generators, from which the backbone's noise comes, and give them back afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(draws.derived_seed(self.seed, BACKBONE_NOISE, update, self.global_rank))
            yield

    def _average_over_devices(self, value: Tensor) -> None:
        if self.trainer.world_size > 1:
            value.copy_(self.trainer.strategy.reduce(value.clone(), reduce_op="mean"))

    def _optimisers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        optimisers = self.optimizers()
        assert isinstance(optimisers, list)
        return optimisers[0], optimisers[1]


def _discriminator_of(start: Pretrained) -> DiscriminatorConfig | None:
    """Sizes of the discriminators to start from, if there are any."""
    if start.discriminator:
        return DiscriminatorConfig(**start.discriminator)
    prefix = "image_discriminator."
    own = {name.removeprefix(prefix): tensor for name, tensor in start.tensors.items() if name.startswith(prefix)}
    return DiscriminatorConfig.of(own) if own else None


def beta_times(early: Float[Tensor, " batch"], late: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2"]:
    """Times of generated pairs: ascending, one from Beta(2, 1), the other from Beta(1, 2), of uniform numbers.

    Both distributions have closed inverses: u -> sqrt(u) and u -> 1 - sqrt(1 - u).
    """
    return torch.stack([early.sqrt(), 1 - (1 - late).sqrt()], dim=1).sort(dim=1).values
