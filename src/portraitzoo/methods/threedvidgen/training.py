"""Training 3D-Aware Video Generation: one update of generator and discriminators, and what it starts from.

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
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from portraitzoo.media.images import to_uint8
from portraitzoo.methods.threedvidgen.cameras import gaussian_camera, relative_camera
from portraitzoo.methods.threedvidgen.data import PairBatch
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.model import ThreeDVidGen
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.objective import Draws, LossWeights, Objective, fade
from portraitzoo.methods.threedvidgen.renderer import Draws as RayDraws
from portraitzoo.training import draws
from portraitzoo.training.diffaugment import DiffAugmentDraws
from portraitzoo.training.frame_pairs import beta_times
from portraitzoo.training.phases import PhasedTraining, PhaseLoss, starting_sizes
from portraitzoo.training.precision import LowPrecision, lower_precision
from portraitzoo.training.pretrained import Pretrained, load_fitting, read_pretrained

GMAIN, GREG, DMAIN, GMAIN_AUGMENT, DMAIN_AUGMENT, REAL_AUGMENT, R1_AUGMENT, PATH_NOISE = range(8)
"""Purposes of random draws."""

MOTION = "field.motion."
"""Parameters of a generator of videos that one of images lacks."""


class ThreeDVidGenTraining(PhasedTraining):
    """Adversarial training of 3D-Aware Video Generation (Bahmani et al., TMLR 2023, section 3.3).

    All random numbers of an update follow from ``seed``, the update and each sample's place in the stream of samples:
    resumed runs and runs on several devices draw as an undisturbed single one. What does depend on how the batch is
    split over devices, as published: the groups of the minibatch standard deviation, the half of the batch that path
    lengths are taken of, and the magnitudes within an update.

    Args:
        network: sizes of the generator; None takes those of ``init_from`` (or the official ones).
        discriminator: sizes of the discriminators; None takes those of ``init_from``, else the generator's.
        init_from: what to start from: an entry of the index, a folder in our format, or a run's checkpoint. The
            generator starts from the averaged weights unless the raw ones are there too. From a model of single images
            (without a motion network and a video discriminator) the video discriminator takes over what fits of the
            image discriminator's weights, and what is missing starts fresh.
        losses: weights of the losses.
        fade_start: samples at which the buffer ``alpha`` begins to rise, see
            :func:`portraitzoo.methods.threedvidgen.objective.fade`.
        fade_end: samples at which it is 1.
        generator_lr: Adam's learning rate of the generator, before the scaling for lazy regularisation.
        discriminator_lr: that of both discriminators.
        generator_interval: updates per path length regularisation.
        discriminator_interval: updates per R1 regularisation.
        ema_half_life: samples, per 32 of the batch, after which old weights count one half in the average.
        ema_rampup: the half life is at most this share of the samples seen; null, as published, switches this off.
        low_precision: number format of the large blocks of the upsampler and the discriminators on a GPU.
        device_batch: clips that a device takes at a time; gradients of the rest of its batch are added up. None takes
            all at once.
        seed: seed of all draws.

    Raises:
        CheckpointError: if ``init_from`` does not fit ``network`` or ``discriminator``.
        ZooError: if ``init_from`` is unknown.
    """

    FAMILY = "threedvidgen"
    generator: Generator
    generator_ema: Generator
    image_discriminator: ImageDiscriminator
    video_discriminator: VideoDiscriminator
    path_length_mean: Tensor

    def __init__(
        self,
        network: ThreeDVidGenConfig | None = None,
        discriminator: DiscriminatorConfig | None = None,
        init_from: str | None = None,
        losses: LossWeights = LossWeights(),  # noqa: B008 - frozen
        fade_start: float = 24e6,
        fade_end: float = 25e6,
        generator_lr: float = 0.0025,
        discriminator_lr: float = 0.0025,
        generator_interval: int = 4,
        discriminator_interval: int = 16,
        ema_half_life: float = 20_000,
        ema_rampup: float | None = None,
        low_precision: LowPrecision | None = None,
        device_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        start = read_pretrained(init_from, self.FAMILY) if init_from else None
        kinds = ThreeDVidGenConfig, DiscriminatorConfig
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
            device_batch=device_batch,
            init_from=init_from,
            seed=seed,
        )
        self.register_buffer("path_length_mean", torch.zeros(()))
        if start:
            load_fitting(self, _with_motion(start, self.state_dict()))
        # As published: the upsampler after its first block, and the discriminators' four largest resolutions.
        judges = (self.image_discriminator, self.video_discriminator)
        lower_precision(low_precision, list(self.generator.upsampler.values())[1:], judges)
        self.losses, self.fade_start, self.fade_end = losses, fade_start, fade_end
        self.objective = Objective(
            self.generator,
            self.image_discriminator,
            self.video_discriminator,
            losses,
            generator_interval,
            discriminator_interval,
        )

    def generator_main(self, batch: PairBatch) -> PhaseLoss:
        """The generator fools both discriminators and is consistent over views."""
        return self.objective.generator_main(self.draw(GMAIN, batch), self.draw_augmentation(GMAIN_AUGMENT, batch))

    def generator_regulariser(self, batch: PairBatch) -> PhaseLoss:
        """Path lengths of the first half of the batch are alike."""
        half = self.draw(GREG, batch).first(max(1, len(batch.position) // 2))
        side = self.config.image_resolution
        generators = self.generators(PATH_NOISE, batch)[: len(half.z)]
        noise = [torch.randn(2, 3, side, side, generator=one, device=self.device) for one in generators]
        loss = self.objective.generator_regulariser(half, torch.cat(noise), self.path_length_mean)
        self.path_length_mean.copy_(loss.observed["path_length_mean"])
        return loss

    def discriminator_main(self, batch: PairBatch) -> PhaseLoss:
        """Both discriminators tell generated pairs from real ones."""
        return self._told_apart(self.objective, batch)

    def discriminator_regulariser(self, batch: PairBatch) -> PhaseLoss:
        """R1 on real pairs."""
        augment = self.draw_augmentation(R1_AUGMENT, batch)
        return self.objective.discriminator_regulariser(batch.frames, batch.times, augment)

    @torch.no_grad()
    def validation_loss(self, batch: PairBatch) -> PhaseLoss:
        """The discriminators' loss of held-out pairs and pairs of the averaged generator."""
        objective = Objective(self.generator_ema, self.image_discriminator, self.video_discriminator, self.losses)
        return self._told_apart(objective, batch)

    def schedule(self, batch: PairBatch) -> dict[str, float]:
        """The value of the ``alpha`` buffer."""
        return {"alpha": self._alpha()}

    def moving_averages(self) -> list[Tensor]:
        """Average w, magnitudes, and the mean path length."""
        moving = [value for name, value in self.generator.named_buffers() if name.endswith(("w_avg", "magnitude"))]
        return [*moving, self.path_length_mean]

    def record(self) -> dict[str, Any]:
        """Weights of the losses."""
        return {"losses": dataclasses.asdict(self.losses)}

    @contextmanager
    def update_context(self, update: int) -> Iterator[None]:
        """Set ``alpha`` to where its schedule stands."""
        self.generator.alpha.fill_(self._alpha())
        yield

    def draw(self, purpose: int, batch: PairBatch) -> Draws:
        """Random inputs of one phase, each sample's from its own generator on this device.

        Args:
            purpose: GMAIN, GREG or DMAIN.
            batch: gives the samples' places in the stream.
        """
        config, generators = self.config, self.generators(purpose, batch)

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(shape, generator=one, device=one.device) for one in generators])

        z, z_second = normal(2, config.z_dim).unbind(1)
        z_motion, z_background = normal(config.motion_dim), normal(config.background_dim)
        yaw, polar = normal(2).cpu().unbind(1)
        uniforms = torch.stack([torch.rand(5, generator=one, device=one.device) for one in generators])
        mixing, cut, early, late, radius = uniforms.unbind(1)
        return Draws(
            z=z,
            z_second=z_second,
            z_motion=z_motion,
            z_background=z_background,
            mixing=mixing,
            cut=1 + (cut * (self.generator.num_ws - 1)).long(),
            times=beta_times(early, late),
            camera=gaussian_camera(config, yaw, polar, radius.cpu()).to(self.device),
            rays=RayDraws.fresh(self.generator.training_rays, self.generator.span, generators),
        )

    def draw_augmentation(self, purpose: int, batch: PairBatch) -> DiffAugmentDraws:
        """Random numbers of an augmentation, each sample's from its own generator on this device."""
        return DiffAugmentDraws.fresh(self.config.image_resolution, self.generators(purpose, batch))

    def model(self) -> ThreeDVidGen:
        """The averaged generator as its users meet it; the weights are shared."""
        with torch.device("meta"):
            model = ThreeDVidGen(self.config)
        model.generator = self.generator_ema
        return model

    @torch.no_grad()
    def sample_grid(self, rows: int = 4, columns: int = 6) -> UInt8[Tensor, "rows columns height width 3"]:
        """Frames of the averaged generator: a seed for each row, turning and moving in time along the columns."""
        config, generator = self.config, draws.generator(self.seed)
        camera = relative_camera(config, torch.linspace(0.25, 0.75, columns)).expand(1, columns).to(self.device)
        times = torch.linspace(0, 1, columns, device=self.device)[None]
        grid = []
        for _ in range(rows):
            widths = (config.z_dim, config.motion_dim, config.background_dim)
            z, z_motion, z_background = (torch.randn(1, width, generator=generator).to(self.device) for width in widths)
            output = self.generator_ema(z, z_motion, times, camera, z_background)
            grid.append(to_uint8(output.image, "threedvidgen").cpu())
        return torch.stack(grid)

    def _told_apart(self, objective: Objective, batch: PairBatch) -> PhaseLoss:
        return objective.discriminator_main(
            self.draw(DMAIN, batch),
            self.draw_augmentation(DMAIN_AUGMENT, batch),
            batch.frames,
            batch.times,
            self.draw_augmentation(REAL_AUGMENT, batch),
        )

    def _alpha(self) -> float:
        return fade(int(self.num_samples), self.fade_start, self.fade_end)


def _with_motion(start: Pretrained, fresh: dict[str, Tensor]) -> Pretrained:
    """Complete what a model of single images lacks; a model of videos comes back as it is."""
    tensors, prefixes = dict(start.tensors), ("generator.", "generator_ema.")
    for prefix in prefixes:
        own = {name for name in tensors if name.startswith(prefix)}
        if own and not any(name.startswith(prefix + MOTION) for name in own):
            tensors |= {name: value for name, value in fresh.items() if name.startswith(prefix + MOTION)}
    image, video = "image_discriminator.", "video_discriminator."
    judges = {name.partition(".")[0] + "." for name in tensors}
    if image in judges and video not in judges:
        for name, value in fresh.items():
            if name.startswith(video):
                inherited = tensors.get(image + name.removeprefix(video), value)
                tensors[name] = inherited if inherited.shape == value.shape else value
    return dataclasses.replace(start, tensors=tensors)
