"""Training PV3D: one update of generator and discriminators, and everything that it needs to be resumed.

A run's folder (``trainer.default_root_dir``) holds::

    config.yaml               the recipe as run (written by LightningCLI)
    history.jsonl             losses, scores and schedules, one line per logged update
    events.out.tfevents.*     the same and the sample grids, for TensorBoard
    samples/UPDATE.png        sample grids of the averaged generator
    evaluation/UPDATE/        reports of the metrics, where the recipe has them measured
    predictions/SEED.mp4      clips of `zoo predict`
    checkpoints/last.ckpt     everything that resuming needs; beside it older ones

What a checkpoint holds is told by :class:`portraitzoo.training.phases.PhasedTraining`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.media.images import to_uint8
from portraitzoo.methods.pv3d.data import PairBatch
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.model import PV3D
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig
from portraitzoo.methods.pv3d.objective import Draws, Frames, LossWeights, Noise, Objective, Stage
from portraitzoo.rendering.cameras import LEVEL, Camera
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training import draws
from portraitzoo.training.frame_pairs import beta_times
from portraitzoo.training.phases import PhasedTraining, PhaseLoss, starting_sizes
from portraitzoo.training.precision import LowPrecision, lower_precision
from portraitzoo.training.pretrained import load_fitting, read_pretrained
from portraitzoo.training.schedules import Schedules

GMAIN, GREG, DMAIN, DENSITY, BACKBONE_NOISE = range(5)
"""Purposes of random draws; the first three also number the camera pairs of a batch."""

DENSITY_POINTS = 1000
"""Points per frame at which the density regulariser looks."""


class PV3DTraining(PhasedTraining):
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

    FAMILY = "pv3d"
    generator: Generator
    generator_ema: Generator
    image_discriminator: ImageDiscriminator
    video_discriminator: VideoDiscriminator

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
        low_precision: LowPrecision | None = None,
        seed: int = 0,
    ) -> None:
        start = read_pretrained(init_from, "pv3d") if init_from else None
        kinds = PV3DConfig, DiscriminatorConfig
        sizes, judge_sizes = starting_sizes(start, network, discriminator, kinds)
        super().__init__(
            config=sizes,
            discriminator_config=judge_sizes,
            generator=Generator(sizes),
            discriminators={
                "image_discriminator": ImageDiscriminator(judge_sizes),
                "video_discriminator": VideoDiscriminator(judge_sizes),
            },
            generator_lr=generator_lr,
            discriminator_lr=discriminator_lr,
            generator_interval=generator_interval,
            discriminator_interval=discriminator_interval,
            ema_half_life=ema_half_life,
            ema_rampup=ema_rampup,
            init_from=init_from,
            seed=seed,
        )
        if start:
            load_fitting(self, start)
        # As published: the whole super-resolution, and the discriminators' four largest resolutions.
        judges = (self.image_discriminator, self.video_discriminator)
        lower_precision(low_precision, self.generator.super_resolution.blocks, judges)
        self.losses, self.schedules = losses, schedules
        self.objective = Objective(
            self.generator,
            self.image_discriminator,
            self.video_discriminator,
            losses,
            generator_interval,
            discriminator_interval,
            noise,
        )

    def generator_main(self, batch: PairBatch) -> PhaseLoss:
        """The generator fools both discriminators."""
        stage = self._stage_of(batch)
        return self.objective.generator_main(self.draw(GMAIN, batch, stage), stage)

    def generator_regulariser(self, batch: PairBatch) -> PhaseLoss:
        """The density varies little over short distances."""
        stage = self._stage_of(batch)
        drawn = self.draw(GREG, batch, stage, rays=False)
        return self.objective.generator_regulariser(drawn, stage, *self.draw_points(batch))

    def discriminator_main(self, batch: PairBatch) -> PhaseLoss:
        """Both discriminators tell generated frames from real ones."""
        stage = self._stage_of(batch)
        return self.objective.discriminator_main(self.draw(DMAIN, batch, stage), self._real(batch, stage), stage)

    def discriminator_regulariser(self, batch: PairBatch) -> PhaseLoss:
        """R1 on real frames."""
        stage = self._stage_of(batch)
        return self.objective.discriminator_regulariser(self._real(batch, stage), stage)

    def validation_loss(self, batch: PairBatch) -> PhaseLoss:
        """The discriminators' loss of held-out pairs and pairs of the averaged generator."""
        stage = self._stage_of(batch)
        objective = Objective(
            self.generator_ema, self.image_discriminator, self.video_discriminator, self.losses, noise="const"
        )
        return objective.validation(self.draw(DMAIN, batch, stage), self._real(batch, stage), stage)

    def schedule(self, batch: PairBatch) -> dict[str, float]:
        """Blur, swapping and render resolution."""
        return dataclasses.asdict(self._stage_of(batch))

    def moving_averages(self) -> list[Tensor]:
        """The mapping's average w."""
        return [self.generator.mapping.w_avg]

    def record(self) -> dict[str, Any]:
        """Weights of the losses and the schedules."""
        return {"losses": dataclasses.asdict(self.losses), "schedules": dataclasses.asdict(self.schedules)}

    @contextmanager
    def update_context(self, update: int) -> Iterator[None]:
        """Seed the global generators, from which the backbone's noise comes, and give them back afterwards."""
        with draws.seeded_globals(self.device, self.seed, BACKBONE_NOISE, update, self.global_rank):
            yield

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
        for generator in self.generators(purpose, batch):
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
        for generator in self.generators(DENSITY, batch):
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

    def _stage_of(self, batch: PairBatch) -> Stage:
        return self.stage(batch.frames.shape[0])

    def _real(self, batch: PairBatch, stage: Stage) -> Frames:
        return self.objective.real_frames(batch.frames, batch.times, batch.cameras, stage)
