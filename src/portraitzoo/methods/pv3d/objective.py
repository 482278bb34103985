"""PV3D's four training phases as functions of explicit inputs: what is random is an argument.

One update of the generator G and the discriminators D runs, in this order (PV3D, section 3.4; lazy regularisation as in
StyleGAN2):

1. generator main: G fools both discriminators;
2. generator regulariser: the density varies little over short distances;
3. discriminator main: both discriminators tell generated frames from real ones;
4. discriminator regulariser: R1 on real frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.layers.resampling import resize
from portraitzoo.methods.pv3d.discriminator import ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator, PV3DOutput
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training.blur import blur
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.regularisers import density_variation
from portraitzoo.training.two_judges import flattened, fooled, told_apart

Noise = Literal["random", "const", "none"]

PERTURBATION = 0.004
"""Distance scale, in world units, over which the density regulariser compares densities."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; the defaults are those of the VoxCeleb checkpoints.

    Attributes:
        image: of everything that the image discriminator judges.
        video: of everything that the video discriminator judges.
        density: of the density regulariser.
        r1_gamma: of the R1 penalty (its half multiplies the squared gradient).
    """

    image: float = 1.0
    video: float = 0.65
    density: float = 0.6
    r1_gamma: float = 2.0


@dataclass(frozen=True)
class Draws:
    """The random inputs of one phase; frames are flattened as (clip, frame).

    Attributes:
        z: appearance codes, N(0, I).
        z_motion: motion codes, N(0, I).
        times: of the two frames of each clip, ascending, in [0, 1].
        cameras: labels of the two frames.
        swap: uniform numbers that decide whose cameras the mapping is told.
        sampling: random numbers of the ray sampler.
    """

    z: Float[Tensor, "batch z_dim"]
    z_motion: Float[Tensor, "batch z_dim"]
    times: Float[Tensor, "batch 2"]
    cameras: Float[Tensor, "batch 2 25"]
    swap: Float[Tensor, " batch"]
    sampling: RaySampling = field(default_factory=RaySampling)


@dataclass(frozen=True)
class Stage:
    """Where training stands: the values of the schedules at one update.

    Attributes:
        blur_sigma: blur before the discriminators, pixels.
        swap_probability: how often the mapping is told another clip's cameras.
        render_resolution: side of the volume-rendered image.
    """

    blur_sigma: float
    swap_probability: float
    render_resolution: int


@dataclass(frozen=True)
class Frames:
    """What the discriminators judge: frame pairs, real or generated.

    Attributes:
        image: full images in about [-1, 1], frames flattened as (clip, frame).
        image_raw: images before super-resolution, or real ones of that size.
        times: of the two frames of each clip.
        cameras: their labels.
    """

    image: Float[Tensor, "frames 3 height width"]
    image_raw: Float[Tensor, "frames 3 raw raw"]
    times: Float[Tensor, "batch 2"]
    cameras: Float[Tensor, "batch 2 25"]


@dataclass(frozen=True)
class Scores:
    """Logits of both discriminators and, for R1, the very tensors that they were given."""

    image: Float[Tensor, "frames 1"]
    video: Float[Tensor, "batch 1"]
    image_inputs: tuple[Tensor, Tensor]
    video_input: Float[Tensor, "batch 7 height width"]


def paired(per_clip: Float[Tensor, "batch width"]) -> Float[Tensor, "frames width"]:
    """Repeat a value of each clip for its two frames."""
    return per_clip.repeat_interleave(2, dim=0)


def swapped_cameras(
    cameras: Float[Tensor, "batch 2 25"], swap: Float[Tensor, " batch"], probability: float
) -> Float[Tensor, "batch 2 25"]:
    """Cameras that the mapping is told: where ``swap < probability`` those of the previous clip on this device."""
    return torch.where((swap < probability)[:, None, None], cameras.roll(1, dims=0), cameras)


class Objective:
    """The four losses over three networks.

    Args:
        generator: in training (not its average).
        image_discriminator: judges single frames.
        video_discriminator: judges pairs of frames and the time between them.
        weights: of the losses.
        generator_interval: updates per run of the generator regulariser, which is scaled up by it.
        discriminator_interval: updates per run of the discriminator regulariser, which is scaled up by it.
        noise: noise of the backbone; published training draws it afresh (``random``).
    """

    def __init__(
        self,
        generator: Generator,
        image_discriminator: ImageDiscriminator,
        video_discriminator: VideoDiscriminator,
        weights: LossWeights,
        generator_interval: int = 4,
        discriminator_interval: int = 16,
        noise: Noise = "random",
    ) -> None:
        self.generator = generator
        self.image_discriminator = image_discriminator
        self.video_discriminator = video_discriminator
        self.weights = weights
        self.generator_interval, self.discriminator_interval = generator_interval, discriminator_interval
        self.noise: Noise = noise

    def generator_main(self, draws: Draws, stage: Stage) -> PhaseLoss:
        """Non-saturating loss of generated pairs (PV3D, equation 6)."""
        output = self.generate(draws, stage)
        scores = self.judge(_generated(output, draws), stage)
        loss = fooled(scores, self.weights)
        images = {"image": scores.image_inputs[0].detach(), "image_raw": output.image_raw.detach()}
        return replace(loss, observed=loss.observed | images)

    def generator_regulariser(
        self,
        draws: Draws,
        stage: Stage,
        points: Float[Tensor, "frames points 3"],
        offsets: Float[Tensor, "frames points 3"],
    ) -> PhaseLoss:
        """Density regulariser, times its interval.

        Args:
            draws: codes, times and cameras; the ray sampler is not used.
            stage: of training.
            points: uniform in [0, 1). They are spread over [-1, 1], of which the volume fills the middle half; the
                published weight was tuned with that.
            offsets: standard normal.
        """
        _, planes = self._volume(draws, stage)
        near = 2 * points - 1
        both = torch.cat([near, near + PERTURBATION * offsets], dim=1)
        density, beside = self.generator.field(both, planes)[0].chunk(2, dim=1)
        loss = self.weights.density * self.generator_interval * density_variation(density, beside)
        return PhaseLoss({"variation": loss}, {"density": density.detach(), "density_nearby": beside.detach()})

    def discriminator_main(self, draws: Draws, real: Frames, stage: Stage) -> PhaseLoss:
        """Logistic loss of generated and real pairs. The only phase that moves the mapping's average w."""
        fakes = _generated(self.generate(draws, stage, update_average=True), draws)
        fakes = replace(fakes, image=fakes.image.detach(), image_raw=fakes.image_raw.detach())
        return self._told_apart(fakes, real, stage)

    @torch.no_grad()
    def validation(self, draws: Draws, real: Frames, stage: Stage) -> PhaseLoss:
        """The discriminators' loss without learning anything from it.

        On clips that training does not see it tells whether the discriminators know their clips by heart: their scores
        of real frames then fall below those in training.
        """
        return self._told_apart(_generated(self.generate(draws, stage), draws), real, stage)

    def discriminator_regulariser(self, real: Frames, stage: Stage) -> PhaseLoss:
        """R1 of both discriminators on real frames as they see them (that is, blurred), times its interval."""
        scores = self.judge(real, stage, differentiable=True)
        scale = self.weights.r1_gamma / 2 * self.discriminator_interval
        return flattened(
            scores,
            scores.image_inputs,
            [scores.video_input],
            image_weight=self.weights.image * scale,
            video_weight=self.weights.video * scale,
        )

    def generate(self, draws: Draws, stage: Stage, update_average: bool = False) -> PV3DOutput:
        """Two frames of each clip, each mapped with its own (or, when swapped, the neighbour's) camera."""
        ws, planes = self._volume(draws, stage, update_average)
        camera = Camera.from_label(draws.cameras.flatten(0, 1))
        return self.generator.render(
            planes, ws, camera, render_resolution=stage.render_resolution, sampling=draws.sampling
        )

    def real_frames(
        self, frames: Float[Tensor, "batch 2 3 height width"], times: Tensor, cameras: Tensor, stage: Stage
    ) -> Frames:
        """Real pairs, with the small image that stands beside a generated one's."""
        image = frames.flatten(0, 1)
        raw = blur(resize(image, stage.render_resolution), stage.blur_sigma)
        return Frames(image, raw, times, cameras)

    def judge(self, frames: Frames, stage: Stage, differentiable: bool = False) -> Scores:
        """Scores of both discriminators; the full image is blurred first.

        Args:
            frames: real or generated pairs.
            stage: of training.
            differentiable: cut the inputs off what made them and let them require gradients, for R1.
        """
        image, raw = blur(frames.image, stage.blur_sigma), frames.image_raw
        if differentiable:
            image, raw = image.detach().requires_grad_(), raw.detach().requires_grad_()
        pair = self.video_discriminator.stack_pair(image.unflatten(0, (-1, 2)), frames.times)
        return Scores(
            image=self.image_discriminator(image, raw, frames.cameras.flatten(0, 1)),
            video=self.video_discriminator(pair, frames.cameras),
            image_inputs=(image, raw),
            video_input=pair,
        )

    def _told_apart(self, fakes: Frames, real: Frames, stage: Stage) -> PhaseLoss:
        return told_apart(self.judge(fakes, stage), self.judge(real, stage), self.weights)

    def _volume(
        self, draws: Draws, stage: Stage, update_average: bool = False
    ) -> tuple[Float[Tensor, "frames num_ws w_dim"], Float[Tensor, "frames 3 channels res res"]]:
        told = swapped_cameras(draws.cameras, draws.swap, stage.swap_probability).flatten(0, 1)
        ws = self.generator.mapping(paired(draws.z), told, update_average=update_average)
        planes = self.generator.planes(ws, paired(draws.z_motion), draws.times.flatten(), noise=self.noise)
        return ws, planes


def _generated(output: PV3DOutput, draws: Draws) -> Frames:
    return Frames(output.image, output.image_raw, draws.times, draws.cameras)
