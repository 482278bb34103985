"""The four training phases of 3D-Aware Video Generation as functions of explicit inputs: what is random is an argument.

One update of the generator G and the discriminators D runs, in this order (Bahmani et al., section 3.3; StyleGAN2's
lazy regularisation):

1. generator main: G fools both discriminators; NeRF path regularisation keeps it consistent over views;
2. generator regulariser: steps in style space move the image evenly (path length);
3. discriminator main: both discriminators tell generated frames from real ones;
4. discriminator regulariser: R1 on real frames.

Whatever a discriminator sees goes through DiffAugment first, the same for both frames of a video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.methods.threedvidgen.discriminator import ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenOutput
from portraitzoo.methods.threedvidgen.renderer import Draws as RayDraws
from portraitzoo.rendering.cameras import Camera
from portraitzoo.training.diffaugment import DiffAugmentDraws, diffaugment
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.regularisers import path_length_penalty, path_lengths
from portraitzoo.training.two_judges import flattened, fooled, told_apart


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; the defaults are the published ones.

    Attributes:
        image: of everything that the image discriminator judges, but its R1 penalty.
        video: of everything that the video discriminator judges, but its R1 penalty.
        nerf_path: of NeRF path regularisation.
        path_length: of the path length penalty.
        path_length_decay: share of a batch in the running mean of path lengths.
        r1_gamma: of the R1 penalties (its half multiplies the squared gradients).
        style_mixing: probability that a video's styles come from two codes.
    """

    image: float = 1.0
    video: float = 1.0
    nerf_path: float = 1.0
    path_length: float = 2.0
    path_length_decay: float = 0.01
    r1_gamma: float = 0.5
    style_mixing: float = 0.9


@dataclass(frozen=True)
class Draws:
    """The random inputs of a phase that generates.

    Attributes:
        z: appearance codes, N(0, I).
        z_second: a second one for each video, whose styles come after the cut where styles are mixed.
        z_motion: motion codes, N(0, I).
        z_background: background codes, N(0, I).
        mixing: uniform; styles are mixed where it is less than the probability of that.
        cut: first style vector of the second code, in 1 ... num_ws - 1.
        times: of the two frames of each video, ascending, in [0, 1].
        camera: of each video, shared by its frames.
        rays: random numbers of the renderer; None for even samples, without NeRF path regularisation.
    """

    z: Float[Tensor, "batch z_dim"]
    z_second: Float[Tensor, "batch z_dim"]
    z_motion: Float[Tensor, "batch motion_dim"]
    z_background: Float[Tensor, "batch background_dim"]
    mixing: Float[Tensor, " batch"]
    cut: Int[Tensor, " batch"]
    times: Float[Tensor, "batch 2"]
    camera: Camera
    rays: RayDraws | None = None

    def first(self, count: int) -> Draws:
        """The first ``count`` videos."""
        names = ("z", "z_second", "z_motion", "z_background", "mixing", "cut", "times")
        rays = self.rays and RayDraws(**{name: value[:count] for name, value in vars(self.rays).items()})
        return Draws(**{name: getattr(self, name)[:count] for name in names}, camera=self.camera[:count], rays=rays)


@dataclass(frozen=True)
class Scores:
    """Logits of both discriminators and, for R1, what they are differentiated by.

    Attributes:
        image: of every frame.
        video: of every pair.
        frames: augmented frames, what the image discriminator saw.
        pair: stacked pairs before augmentation.
    """

    image: Float[Tensor, "frames 1"]
    video: Float[Tensor, "batch 1"]
    frames: Float[Tensor, "frames 3 height width"]
    pair: Float[Tensor, "batch 7 height width"]


def fade(num_samples: int, start: float = 24e6, end: float = 25e6) -> float:
    """Value of the ``alpha`` buffer: 0 until ``start`` samples, then linearly to 1 at ``end``.

    Nothing depends on it but the number of samples of a ray, which differs in a network that was never trained.
    """
    return min(max((num_samples - start) / (end - start), 0.0), 1.0)


class Objective:
    """The four losses over three networks.

    Args:
        generator: in training (not its average).
        image_discriminator: judges single frames.
        video_discriminator: judges pairs of frames and the time between them.
        weights: of the losses.
        generator_interval: updates per run of the generator regulariser, which is scaled up by it.
        discriminator_interval: updates per run of the discriminator regulariser, which is scaled up by it.
    """

    def __init__(
        self,
        generator: Generator,
        image_discriminator: ImageDiscriminator,
        video_discriminator: VideoDiscriminator,
        weights: LossWeights,
        generator_interval: int = 4,
        discriminator_interval: int = 16,
    ) -> None:
        self.generator = generator
        self.image_discriminator = image_discriminator
        self.video_discriminator = video_discriminator
        self.weights = weights
        self.generator_interval, self.discriminator_interval = generator_interval, discriminator_interval

    def generator_main(self, draws: Draws, augment: DiffAugmentDraws) -> PhaseLoss:
        """Non-saturating loss of generated pairs, and NeRF path regularisation (StyleNeRF, section 3.3)."""
        output = self.generate(draws)
        scores = self.judge(output.image.unflatten(0, (-1, 2)), draws.times, augment)
        assert output.regularisation is not None
        loss = fooled(scores, self.weights)
        consistency = self.weights.nerf_path * output.regularisation.mean()
        return replace(loss, parts={**loss.parts, "nerf_path": consistency})

    def generator_regulariser(
        self, draws: Draws, noise: Float[Tensor, "frames 3 height width"], mean: Float[Tensor, ""]
    ) -> PhaseLoss:
        """Path length penalty (StyleGAN2, section 3.2), times its interval.

        Args:
            draws: of half a batch, as published, which saves memory.
            noise: standard normal, for all frames.
            mean: running mean of path lengths; ``observed`` has the one after this batch as ``path_length_mean``.
        """
        ws = self._styles(draws)
        image = self._synthesise(ws, draws).image
        pixels = image.shape[-2] * image.shape[-1]
        (gradients,) = torch.autograd.grad((image * noise).sum() / pixels**0.5, ws, create_graph=True)
        lengths = path_lengths(gradients)
        penalty, moved = path_length_penalty(lengths, mean, self.weights.path_length_decay)
        return PhaseLoss(
            parts={"path_length": self.weights.path_length * self.generator_interval * penalty.mean()},
            observed={"path_lengths": lengths.detach(), "path_length_mean": moved},
        )

    def discriminator_main(
        self,
        draws: Draws,
        augment: DiffAugmentDraws,
        frames: Float[Tensor, "batch 2 3 height width"],
        times: Float[Tensor, "batch 2"],
        augment_real: DiffAugmentDraws,
    ) -> PhaseLoss:
        """Logistic loss of generated and real pairs.

        Args:
            draws: of the generated pairs.
            augment: for them.
            frames: real pairs in [-1, 1].
            times: of the real frames.
            augment_real: for the real pairs.
        """
        with torch.no_grad():
            image = self.generate(draws).image.unflatten(0, (-1, 2))
        fake = self.judge(image, draws.times, augment)
        return told_apart(fake, self.judge(frames, times, augment_real), self.weights)

    def discriminator_regulariser(
        self,
        frames: Float[Tensor, "batch 2 3 height width"],
        times: Float[Tensor, "batch 2"],
        augment: DiffAugmentDraws,
    ) -> PhaseLoss:
        """R1 of both discriminators on real pairs, times its interval.

        The video discriminator is differentiated by all 7 channels before augmentation, the image discriminator by its
        frames after it, as published.
        """
        scores = self.judge(frames, times, augment, differentiable=True)
        scale = self.weights.r1_gamma / 2 * self.discriminator_interval
        return flattened(scores, [scores.frames], [scores.pair], image_weight=scale, video_weight=scale)

    def generate(self, draws: Draws) -> ThreeDVidGenOutput:
        """Two frames of each video. In train mode this moves the average w and the upsampler's magnitudes."""
        return self._synthesise(self._styles(draws), draws)

    def judge(
        self,
        frames: Float[Tensor, "batch 2 3 height width"],
        times: Float[Tensor, "batch 2"],
        augment: DiffAugmentDraws,
        differentiable: bool = False,
    ) -> Scores:
        """Scores of both discriminators.

        Args:
            frames: real or generated pairs.
            times: of the frames.
            augment: random numbers of the augmentation.
            differentiable: cut the pairs off what made them and let them require gradients, for R1.
        """
        pair = self.video_discriminator.stack_pair(frames, times)
        if differentiable:
            pair = pair.detach().requires_grad_()
        seen = diffaugment(pair[:, :6].unflatten(1, (2, 3)), augment)
        return Scores(
            image=self.image_discriminator(single := seen.flatten(0, 1)),
            video=self.video_discriminator(torch.cat([seen.flatten(1, 2), pair[:, 6:]], dim=1)),
            frames=single,
            pair=pair,
        )

    def _styles(self, draws: Draws) -> Float[Tensor, "batch num_ws w_dim"]:
        """Style vectors, of two codes where styles are mixed; only the first code moves the average w."""
        mapping = self.generator.mapping
        ws, second = mapping(draws.z, update_average=self.generator.training), mapping(draws.z_second)
        behind = torch.arange(ws.shape[1], device=ws.device) >= draws.cut[:, None]
        mixed = behind & (draws.mixing < self.weights.style_mixing)[:, None]
        return torch.where(mixed[..., None], second, ws)

    def _synthesise(self, ws: Float[Tensor, "batch num_ws w_dim"], draws: Draws) -> ThreeDVidGenOutput:
        return self.generator.synthesis(
            ws, draws.z_motion, draws.times, draws.camera, draws.z_background, draws=draws.rays
        )
