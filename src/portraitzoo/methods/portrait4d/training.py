"""Training Portrait4D: what one update is, and what it starts from; where its tasks come from is for the subclasses.

A run's folder (``trainer.default_root_dir``) holds::

    config.yaml               the recipe as run (written by LightningCLI)
    history.jsonl             losses, scores and schedules, one line per logged update
    events.out.tfevents.*     the same and the sample grids, for TensorBoard
    samples/UPDATE.png        sample grids of the averaged reconstructor
    predictions/NUMBER.mp4    clips of `zoo predict`
    checkpoints/last.ckpt     everything that resuming needs; beside it older ones

What a checkpoint holds is told by :class:`portraitzoo.training.phases.PhasedTraining`; the parametric head is in it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import default_collate

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.media.clip import Clip
from portraitzoo.media.images import to_uint8
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.curriculum import Curriculum, LossWeights
from portraitzoo.methods.portrait4d.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.portrait4d.encoders import ResidualBlock
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.network import Reconstructor
from portraitzoo.methods.portrait4d.perception import Perception, PerceptionWeights
from portraitzoo.methods.portrait4d.phases import Objective, Stage, Task
from portraitzoo.methods.portrait4d.training_views import side_views
from portraitzoo.methods.portrait4d.views import orbit
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.volume import EVEN, RaySampling
from portraitzoo.training.optimisers import lazy_adam
from portraitzoo.training.phases import PhasedTraining, PhaseLoss, starting_sizes
from portraitzoo.training.precision import LowPrecision, lower_precision
from portraitzoo.training.pretrained import load_fitting, read_pretrained

GMAIN, GREG, DMAIN, DREG, DENSITY = range(5)
"""Purposes of random draws."""
RAYS, VIEWS = 8, 16
"""To these the number of a phase is added: random numbers of its ray sampler, and of its teacher's view."""

DENSITY_POINTS = 1000
"""Points at which the density regulariser looks."""

PREDICTED_FRAMES = 48


class Portrait4DTraining(PhasedTraining):
    """What all training of Portrait4D shares (Deng et al., CVPR 2024, section 3.4; ECCV 2024, section 3.3).

    All random numbers of an update follow from ``seed``, the update and each sample's place in the stream of samples:
    resumed runs and runs on several devices draw as an undisturbed single one. What does depend on how the batch is
    split over devices, as published, are the groups of the minibatch standard deviation.

    Args:
        head: the parametric head of a network that starts fresh.
        network: sizes of the reconstructor; None takes those of ``init_from`` (or the official ones). Those of the
            head are always the head's own.
        discriminator: sizes of the discriminator; None takes those of ``init_from``, else the reconstructor's.
        init_from: what to start from: an entry of the index, a folder in our format, or a run's checkpoint. The
            reconstructor starts from the averaged weights unless the raw ones are there too; so does the
            discriminator.
        losses: weights of the losses.
        curriculum: when they count.
        generator_lr: Adam's learning rate of the reconstructor, before the scaling for lazy regularisation.
        discriminator_lr: that of the discriminator.
        cross_lr_scale: how much larger that of the layers is that motion enters by.
        generator_interval: updates per regularisation of the reconstructor.
        discriminator_interval: updates per R1 regularisation.
        ema_half_life: samples, per 32 of the batch, after which old weights count one half in the average.
        ema_rampup: the half life is at most this share of the samples seen; null switches this off.
        perception: weights of the networks that losses look through, see
            :class:`~portraitzoo.methods.portrait4d.perception.Perception`; none is read for a loss of weight 0.
        low_precision: number format on a GPU of super-resolution and the discriminator's large blocks.
        device_batch: samples that a device takes at a time; gradients of the rest of its batch are added up. None
            takes all at once.
        seed: seed of all draws.

    Raises:
        CheckpointError: if ``init_from`` does not fit ``network`` or ``discriminator``.
        ZooError: if ``init_from`` is unknown, or there is no head.
    """

    FAMILY = "portrait4d"
    generator: Reconstructor
    generator_ema: Reconstructor
    discriminator: Discriminator

    def __init__(
        self,
        head: FlameHead | None,
        network: Portrait4DConfig | None = None,
        discriminator: DiscriminatorConfig | None = None,
        init_from: str | None = None,
        losses: LossWeights = LossWeights(),  # noqa: B008 - frozen
        curriculum: Curriculum = Curriculum(),  # noqa: B008 - frozen
        generator_lr: float = 1e-4,
        discriminator_lr: float = 1e-4,
        cross_lr_scale: float = 1.0,
        generator_interval: int = 16,
        discriminator_interval: int = 16,
        ema_half_life: float = 10_000,
        ema_rampup: float | None = 0.05,
        perception: PerceptionWeights = "official",
        low_precision: LowPrecision | None = None,
        device_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        start = read_pretrained(init_from, self.FAMILY) if init_from else None
        kinds = Portrait4DConfig, DiscriminatorConfig
        sizes, judge_sizes = starting_sizes(start, network, discriminator, kinds, "discriminator")
        if start:
            sizes = dataclasses.replace(sizes, head=Portrait4DConfig(**start.network).head)
            generator = Reconstructor(sizes)
        elif head is not None:
            sizes = dataclasses.replace(sizes, head=HeadSizes.of_tensors(head.state_dict()))
            generator = Reconstructor(sizes)
            generator.head.load_state_dict(head.state_dict())
            with torch.no_grad():
                generator.decoder.output.weight[0] = 0  # nothing is denser than anything else at first
            let_through(generator.global_encoder, generator.detail_encoder)
        else:
            raise ZooError("a network that starts fresh needs a parametric head: set `head`, or `init_from`")
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
        # As published: the whole super-resolution, and the discriminator's four largest resolutions.
        lower_precision(low_precision, self.generator.super_resolution.blocks, [self.discriminator])
        self.losses, self.curriculum, self.cross_lr_scale = losses, curriculum, cross_lr_scale
        self.perception = Perception(perception)
        self.objective = Objective(
            self.generator, self.discriminator, self.perception, generator_interval, discriminator_interval
        )
        self._now: Stage | None = None

    def task(self, batch: Any, purpose: int) -> Task:
        """What the reconstructor is asked for a batch.

        Args:
            batch: of the data.
            purpose: phase that asks; random numbers differ between phases.
        """
        raise TypeError(f"{type(self).__name__} does not say what its tasks are")

    def needs(self) -> dict[str, bool]:
        """Which networks of :class:`Perception` training looks through."""
        return {"perceptual": bool(self.losses.perceptual), "identity": bool(self.losses.identity)}

    def on_fit_start(self) -> None:
        """Read the networks that losses look through, so that a missing one is reported at once."""
        self.perception.load(**self.needs())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for both networks, corrected for lazy regularisation; one group of parameters has its own rate."""
        cross = set(cross_parameters(self.generator))
        rest = [parameter for parameter in self.generator.parameters() if parameter not in cross]
        groups = [{"params": rest}, {"params": [p for p in self.generator.parameters() if p in cross]}]
        betas = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-5}
        generator = lazy_adam(groups, self.generator_lr, self.generator_interval, **betas)
        generator.param_groups[1]["lr"] *= self.cross_lr_scale
        judge = self.discriminator.parameters()
        return [generator, lazy_adam(judge, self.discriminator_lr, self.discriminator_interval, **betas)]

    def generator_main(self, batch: Any) -> PhaseLoss:
        """Frames are what they should be, and fool the discriminator."""
        return self.objective.generator_main(self.task(batch, GMAIN), self.stage, self.sampling(GMAIN, batch))

    def generator_regulariser(self, batch: Any) -> PhaseLoss:
        """Densities vary little over short distances."""
        return self.objective.density_regulariser(self.task(batch, GREG), self.stage, *self.draw_points(batch))

    def discriminator_main(self, batch: Any) -> PhaseLoss:
        """The discriminator tells frames from pictures."""
        return self.objective.discriminator_main(self.task(batch, DMAIN), self.stage, self.sampling(DMAIN, batch))

    def discriminator_regulariser(self, batch: Any) -> PhaseLoss:
        """R1 on pictures."""
        return self.objective.discriminator_regulariser(self.task(batch, DREG), self.stage)

    @torch.no_grad()
    def validation_loss(self, batch: Any) -> PhaseLoss:
        """Distances of frames of the averaged reconstructor from held-out pictures."""
        objective = Objective(self.generator_ema, self.discriminator, self.perception)
        stage, task = self._stage_now(), self.task(batch, GMAIN)
        output, planes = objective.generate(task, stage, EVEN)
        return PhaseLoss(objective.distances(output, task, stage, planes), {})

    def schedule(self, batch: Any) -> dict[str, float]:
        """Which losses count and the render resolution, which then hold for the whole update."""
        self._now = self._stage_now()
        weights = self._now.weights
        counted = {name: getattr(weights, name) for name in ("identity", "adversarial", "depth")}
        return {"render_resolution": float(self._now.render_resolution), **counted}

    def moving_averages(self) -> list[Tensor]:
        """Nothing moves but parameters."""
        return []

    def judging(self) -> bool:
        """Whether the adversarial loss counts."""
        return bool(self.stage.weights.adversarial)

    def record(self) -> dict[str, Any]:
        """Weights of the losses and when they count."""
        return {"losses": dataclasses.asdict(self.losses), "curriculum": dataclasses.asdict(self.curriculum)}

    @property
    def stage(self) -> Stage:
        """Where training stands in this update."""
        return self._now or self._stage_now()

    def sampling(self, purpose: int, batch: Any) -> RaySampling:
        """Random numbers of the ray sampler: one row of jitter for all rays of an image, as published.

        Args:
            purpose: phase that renders.
            batch: gives the samples' places in the stream.
        """
        count = self.stage.render_resolution**2
        jitter, importance = [], []
        for generator in self.generators(RAYS + purpose, batch):
            row = torch.rand(1, self.config.depth_samples, generator=generator, device=self.device)
            jitter.append(row.expand(count, -1))
            shape = (count, self.config.importance_samples)
            importance.append(torch.rand(shape, generator=generator, device=self.device))
        return RaySampling(torch.stack(jitter), torch.stack(importance))

    def draw_points(self, batch: Any) -> tuple[Float[Tensor, "batch points 3"], Float[Tensor, "batch points 3"]]:
        """Points, uniform in [0, 1), and standard normal offsets for the density regulariser."""
        points, offsets = [], []
        for generator in self.generators(DENSITY, batch):
            points.append(torch.rand(DENSITY_POINTS, 3, generator=generator, device=self.device))
            offsets.append(torch.randn(DENSITY_POINTS, 3, generator=generator, device=self.device))
        return torch.stack(points), torch.stack(offsets)

    def model(self) -> Portrait4D:
        """The averaged reconstructor as its users meet it; the weights are shared."""
        with torch.device("meta"):
            model = Portrait4D(self.config)
        model.generator = self.generator_ema
        return model

    @torch.no_grad()
    def sample_grid(self, rows: int = 4, columns: int = 6) -> UInt8[Tensor, "rows columns height width 3"]:
        """A person a row: photo, picture to be had, what the averaged reconstructor makes of it; then the same from
        one side to the other.

        Args:
            rows: the first items of the held-out data, or else of the training data.
            columns: at least 3.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        items = data.held_out or data.dataset
        batch = default_collate([items[place % len(items), place % len(items)] for place in range(rows)])
        task = self.task(type(batch)(*(value.to(self.device) for value in batch)), GMAIN)
        shown = [task.image, task.target.image]
        objective = Objective(self.generator_ema, self.discriminator, self.perception)
        stage = self._stage_now()
        shown.append(objective.generate(task, stage, EVEN)[0].image)
        for view in side_views(columns - len(shown)):
            shown.append(self._seen_from(view, task, stage))
        return torch.stack([to_uint8(image).cpu() for image in shown[:columns]], dim=1)

    @torch.no_grad()
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Turn around each head into the run's ``predictions`` folder; those that are there are kept."""
        task, stage = self.task(batch, GMAIN), self._stage_now()
        path = Path(self.trainer.default_root_dir) / "predictions" / f"{int(batch.position):06d}.mp4"
        if not path.exists():
            cameras = orbit(PREDICTED_FRAMES)
            frames = [self._seen_from(cameras[frame], task, stage) for frame in range(PREDICTED_FRAMES)]
            Clip(to_uint8(torch.cat(frames)).cpu(), cameras=cameras).save(path)
        return batch.position

    def _seen_from(self, view: Camera, task: Task, stage: Stage) -> Tensor:
        """Frames of a task's heads with straight necks."""
        count = len(task.image)
        turned = dataclasses.replace(task, camera=view.expand(count).to(self.device), head=task.head.without_neck())
        objective = Objective(self.generator_ema, self.discriminator, self.perception)
        return objective.generate(turned, stage, EVEN)[0].image

    def _stage_now(self) -> Stage:
        images = int(self.num_samples)
        resolution = self.curriculum.render_resolution(images, self.config.render_resolution)
        return Stage(self.curriculum.weights(images, self.losses), resolution)


@torch.no_grad()
def let_through(*encoders: nn.Module) -> None:
    """Initialise convolutions so that features of a photo keep their size (He et al., 2015): upstream the global
    encoder starts from ImageNet (see :mod:`portraitzoo.methods.portrait4d.imagenet`), and without norms PyTorch's own
    initial weights would leave a thousandth of them.

    Args:
        encoders: of photos; the last convolutions of residual blocks start smaller, for their results add up.
    """
    for encoder in encoders:
        blocks = [part for part in encoder.modules() if isinstance(part, ResidualBlock)]
        for part in encoder.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if part.bias is not None:
                    part.bias.zero_()
        for block in blocks:
            block.conv2.weight /= len(blocks) ** 0.5


def cross_parameters(generator: Reconstructor) -> list[nn.Parameter]:
    """Parameters of the layers by which motion enters: its tokens, and cross-attention with its norm."""
    parts = {"source_motion", "drive_motion", "cross_attention", "cross_norm"}
    return [value for name, value in generator.transformer.named_parameters() if parts & set(name.split("."))]
