"""Training GenHead: one update of generator and discriminator, and what it starts from.

A run's folder (``trainer.default_root_dir``) holds::

    config.yaml               the recipe as run (written by LightningCLI)
    history.jsonl             losses, scores and schedules, one line per logged update
    events.out.tfevents.*     the same and the sample grids, for TensorBoard
    samples/UPDATE.png        sample grids of the averaged generator
    evaluation/UPDATE/        reports of the metrics, where the recipe has them measured
    predictions/SEED.mp4      clips of `zoo predict`
    checkpoints/last.ckpt     everything that resuming needs; beside it older ones

What a checkpoint holds is told by :class:`portraitzoo.training.phases.PhasedTraining`; the parametric head is in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.free_head import load_free_head
from portraitzoo.hub.flame_files import load_flame
from portraitzoo.layers.modulation import NoiseMode
from portraitzoo.methods.genhead.data import PhotoBatch
from portraitzoo.methods.genhead.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.genhead.model import GenHead
from portraitzoo.methods.genhead.network import Generator, GenHeadConfig
from portraitzoo.methods.genhead.objective import Draws, Judged, LossWeights, Objective, Stage
from portraitzoo.rendering.cameras import LABEL_SIZE
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training import draws
from portraitzoo.training.phases import PhasedTraining, PhaseLoss, starting_sizes
from portraitzoo.training.precision import LowPrecision, lower_precision
from portraitzoo.training.pretrained import load_fitting, read_pretrained
from portraitzoo.training.schedules import Schedules

HeadSource = Literal["flame", "full", "small"]

GMAIN, GREG, DMAIN, DENSITY, NETWORK_NOISE = range(5)
"""Purposes of random draws; the first three also number the generated heads of a batch."""

DENSITY_POINTS = 1000
"""Points at which the density regulariser looks."""


class GenHeadTraining(PhasedTraining):
    """Adversarial training of GenHead (Deng et al., CVPR 2024, "Portrait4D", section 3.2).

    Generated images are of heads of the data: each takes camera and FLAME parameters of a random photo. Necks are
    straight in all images, real and generated: the whole pose of the head is in the camera.

    All random numbers of an update follow from ``seed``, the update and each sample's place in the stream of samples:
    resumed runs and runs on several devices draw as an undisturbed single one. Two things do depend on how the batch
    is split over devices, as published: the groups of the minibatch standard deviation, and whose condition a swap
    takes.

    Args:
        network: sizes of the generator; None takes those of ``init_from`` (or the official ones). Those of the head
            are always the head's own.
        discriminator: sizes of the discriminator; None takes those of ``init_from``, else the generator's.
        init_from: what to start from: an entry of the index, a folder in our format, or a run's checkpoint. The
            generator starts from the averaged weights unless the raw ones are there too; so does the discriminator.
        head: the parametric head: ``flame`` (from FLAME's files), or the free head, ``full`` or ``small``. Weights to
            start from bring theirs along and know no other; None takes that, else ``flame``.
        losses: weights of the losses.
        schedules: fades of blur and condition swapping, and the render resolution.
        generator_lr: Adam's learning rate of the generator, before the scaling for lazy regularisation.
        discriminator_lr: that of the discriminator.
        generator_interval: updates per density regularisation.
        discriminator_interval: updates per R1 regularisation.
        ema_half_life: samples, per 32 of the batch, after which old weights count one half in the average.
        ema_rampup: the half life is at most this share of the samples seen; null switches this off.
        noise: noise of backbone and background in training.
        low_precision: number format on a GPU of super-resolution, background and the discriminator's large blocks.
        device_batch: photos that a device takes at a time; gradients of the rest of its batch are added up. None takes
            all at once.
        seed: seed of all draws.

    Raises:
        CheckpointError: if ``init_from`` does not fit ``network`` or ``discriminator``.
        ZooError: if ``init_from`` is unknown or has another head than ``head``, or FLAME's files are missing.
    """

    FAMILY = "genhead"
    generator: Generator
    generator_ema: Generator
    discriminator: Discriminator

    def __init__(
        self,
        network: GenHeadConfig | None = None,
        discriminator: DiscriminatorConfig | None = None,
        init_from: str | None = None,
        head: HeadSource | None = None,
        losses: LossWeights = LossWeights(),  # noqa: B008 - frozen
        schedules: Schedules = Schedules(blur_batch="global"),  # noqa: B008 - frozen
        generator_lr: float = 0.0025,
        discriminator_lr: float = 0.002,
        generator_interval: int = 4,
        discriminator_interval: int = 16,
        ema_half_life: float = 10_000,
        ema_rampup: float | None = 0.05,
        noise: NoiseMode = "random",
        low_precision: LowPrecision | None = None,
        device_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        start = read_pretrained(init_from, self.FAMILY) if init_from else None
        kinds = GenHeadConfig, DiscriminatorConfig
        sizes, judge_sizes = starting_sizes(start, network, discriminator, kinds, "discriminator")
        if start:
            sizes = dataclasses.replace(sizes, head=GenHeadConfig(**start.network).head)
            generator = Generator(sizes)
        else:
            tables = load_head(head or "flame").state_dict()
            sizes = dataclasses.replace(sizes, head=HeadSizes.of_tensors(tables))
            generator = Generator(sizes)
            generator.head.load_state_dict(tables)
        super().__init__(
            config=sizes,
            discriminator_config=judge_sizes,
            generator=generator,
            discriminators={"discriminator": Discriminator(judge_sizes)},
            generator_lr=generator_lr,
            discriminator_lr=discriminator_lr,
            generator_interval=generator_interval,
            discriminator_interval=discriminator_interval,
            ema_half_life=ema_half_life,
            ema_rampup=ema_rampup,
            device_batch=device_batch,
            init_from=init_from,
            seed=seed,
        )
        if start:
            load_fitting(self, start)
            if head and not _same_head(generator.head, load_head(head)):
                raise ZooError(f"{init_from} brings another head along than {head!r}: leave `head` out")
        # As published: the whole super-resolution, the background from 8 pixels up, the discriminator's four largest
        # resolutions.
        background = list(self.generator.background.synthesis.blocks.values())[1:]
        blocks = (*self.generator.super_resolution.blocks, *background)
        lower_precision(low_precision, blocks, [self.discriminator])
        self.losses, self.schedules = losses, schedules
        self.objective = Objective(
            self.generator, self.discriminator, losses, generator_interval, discriminator_interval, noise
        )
        self._now: Stage | None = None

    def generator_main(self, batch: PhotoBatch) -> PhaseLoss:
        """The generator fools the discriminator, and keeps the parts of the head apart."""
        return self.objective.generator_main(self.draw(GMAIN, batch, self._stage), self._stage)

    def generator_regulariser(self, batch: PhotoBatch) -> PhaseLoss:
        """Densities vary little over short distances."""
        drawn = self.draw(GREG, batch, self._stage, rays=False)
        return self.objective.generator_regulariser(drawn, self._stage, *self.draw_points(batch))

    def discriminator_main(self, batch: PhotoBatch) -> PhaseLoss:
        """The discriminator tells generated images from real ones."""
        drawn = self.draw(DMAIN, batch, self._stage)
        return self.objective.discriminator_main(drawn, self._real(batch, self._stage), self._stage)

    def discriminator_regulariser(self, batch: PhotoBatch) -> PhaseLoss:
        """R1 on real images."""
        return self.objective.discriminator_regulariser(self._real(batch, self._stage), self._stage)

    def validation_loss(self, batch: PhotoBatch) -> PhaseLoss:
        """The discriminator's loss of held-out photos and images of the averaged generator."""
        stage = self.stage(len(batch.position))
        objective = Objective(self.generator_ema, self.discriminator, self.losses, noise="const")
        return objective.validation(self.draw(DMAIN, batch, stage), self._real(batch, stage), stage)

    def schedule(self, batch: PhotoBatch) -> dict[str, float]:
        """Blur, swapping and render resolution, which then hold for the whole update."""
        self._now = self.stage(len(batch.position))
        return dataclasses.asdict(self._now)

    def moving_averages(self) -> list[Tensor]:
        """The mappings' average w."""
        return [self.generator.backbone.mapping.w_avg, self.generator.background.mapping.w_avg]

    def record(self) -> dict[str, Any]:
        """Weights of the losses and the schedules."""
        return {"losses": dataclasses.asdict(self.losses), "schedules": dataclasses.asdict(self.schedules)}

    @contextmanager
    def update_context(self, update: int) -> Iterator[None]:
        """Seed the global generators, from which the networks' noise comes, and give them back afterwards."""
        with draws.seeded_globals(self.device, self.seed, NETWORK_NOISE, update, self.global_rank):
            yield

    def stage(self, batch: int) -> Stage:
        """Values of the schedules now, for updates of ``batch`` photos on this device."""
        samples = int(self.num_samples)
        return Stage(
            blur_sigma=self.schedules.blur(samples, batch, self.trainer.world_size),
            swap_probability=self.schedules.swap_probability(samples),
            render_resolution=self.schedules.render_resolution(samples, self.config.render_resolution),
        )

    def draw(self, purpose: int, batch: PhotoBatch, stage: Stage, rays: bool = True) -> Draws:
        """Random inputs of one phase, each sample's from its own generator on this device.

        Args:
            purpose: GMAIN, GREG or DMAIN.
            batch: gives the heads and the samples' places in the stream.
            stage: gives the number of rays.
            rays: whether the ray sampler's numbers are wanted.
        """
        count, samples = stage.render_resolution**2, self.config.samples
        codes, swaps, jitter, importance = [], [], [], []
        for generator in self.generators(purpose, batch):
            uniform = partial(torch.rand, generator=generator, device=self.device)
            codes.append(torch.randn(self.config.z_dim, generator=generator, device=self.device))
            swaps.append(uniform(()))
            if rays:
                jitter.append(uniform(1, samples).expand(count, -1))  # the rays of an image share it, as published
                importance.append(uniform(count, samples))
        labels = batch.generated_labels[:, purpose]
        cameras = labels[:, :LABEL_SIZE]
        return Draws(
            z=torch.stack(codes),
            parameters=straight_heads(labels),
            cameras=cameras,
            composed=cameras,
            swap=torch.stack(swaps),
            sampling=RaySampling(torch.stack(jitter), torch.stack(importance)) if rays else None,
        )

    def draw_points(self, batch: PhotoBatch) -> tuple[Float[Tensor, "batch points 3"], Float[Tensor, "batch points 3"]]:
        """Points, uniform in [0, 1), and standard normal offsets for the density regulariser."""
        points, offsets = [], []
        for generator in self.generators(DENSITY, batch):
            points.append(torch.rand(DENSITY_POINTS, 3, generator=generator, device=self.device))
            offsets.append(torch.randn(DENSITY_POINTS, 3, generator=generator, device=self.device))
        return torch.stack(points), torch.stack(offsets)

    def model(self) -> GenHead:
        """The averaged generator as its users meet it; the weights are shared."""
        with torch.device("meta"):
            model = GenHead(self.config)
        model.generator = self.generator_ema
        return model

    def sample_grid(self, rows: int = 4, columns: int = 6) -> UInt8[Tensor, "rows columns height width 3"]:
        """Images of the averaged generator: a seed for each row, seen from one side to the other along the columns
        while it moves.
        """
        model = self.model()
        resolution = self.schedules.render_resolution(int(self.num_samples), self.config.render_resolution)
        options = {"motion": "random", "trajectory": "yaw", "render_resolution": resolution}
        seeds = range(self.seed, self.seed + rows)
        return torch.stack([model.sample(seed, columns, **options).frames for seed in seeds])  # type: ignore[arg-type]

    @property
    def _stage(self) -> Stage:
        assert self._now is not None, "phases run within an update"
        return self._now

    def _real(self, batch: PhotoBatch, stage: Stage) -> Judged:
        cameras = batch.label[:, :LABEL_SIZE]
        return self.objective.real_images(batch.image, batch.segmentation, straight_heads(batch.label), cameras, stage)


def load_head(source: HeadSource) -> FlameHead:
    """The parametric head of a name: ``flame``, or the free head, ``full`` or ``small``.

    Raises:
        ZooError: if FLAME's files are missing, or the free head's package is.
    """
    return load_flame() if source == "flame" else load_free_head(source).head


def straight_heads(labels: Float[Tensor, "batch 437"]) -> FlameParameters:
    """The heads of labels, their necks straight."""
    return FlameParameters.from_label(labels[:, LABEL_SIZE:]).without_neck()


def _same_head(one: FlameHead, other: FlameHead) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    alike = (value.shape == theirs[name].shape and torch.allclose(value, theirs[name]) for name, value in ours.items())
    return all(alike)
