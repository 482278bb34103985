"""GenHead's four training phases as functions of explicit inputs: what is random is an argument.

One update of the generator G and the discriminator D runs, in this order (Portrait4D, section 3.2; lazy regularisation
as in StyleGAN2):

1. generator main: G fools D, and keeps the outer field out of eyes and mouth and these compact and opaque;
2. generator regulariser: densities vary little over short distances;
3. discriminator main: D tells generated images from real ones;
4. discriminator regulariser: R1 on real images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.head_maps import correspondence_map
from portraitzoo.layers.modulation import NoiseMode
from portraitzoo.layers.resampling import resize
from portraitzoo.methods.genhead.cameras import camera_of
from portraitzoo.methods.genhead.composition import PartPlanes
from portraitzoo.methods.genhead.deformer import pose_heads, posed_vertices
from portraitzoo.methods.genhead.discriminator import Discriminator
from portraitzoo.methods.genhead.network import Generator, GenHeadOutput
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training.adversarial import discriminator_loss, generator_loss
from portraitzoo.training.blur import blur
from portraitzoo.training.judged import Judged, r1
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.regularisers import density_variation, ray_distortion

PERTURBATION = 0.004
"""Distance over which the density regulariser compares densities, in units of the box of the tri-planes."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; the defaults are those of the released network.

    Attributes:
        face_in_parts: of the outer field's density on eyes and mouth.
        distortion: of the spread of light on their rays.
        transparency: of the background's share in their pixels.
        density: of the density regulariser.
        r1_image: of the R1 penalty on image and raw image (its half multiplies the squared gradient),
        r1_correspondence: on the correspondence map,
        r1_segmentation: on the segmentation.
    """

    face_in_parts: float = 10.0
    distortion: float = 100.0
    transparency: float = 100.0
    density: float = 0.25
    r1_image: float = 1.0
    r1_correspondence: float = 10.0
    r1_segmentation: float = 1.0


@dataclass(frozen=True)
class Draws:
    """The random inputs of one phase.

    Attributes:
        z: latent codes of head and background, N(0, I).
        parameters: heads, whose necks are straight in all that was published.
        cameras: labels of the cameras that images are rendered with.
        composed: labels of cameras that hold the whole pose of the heads, as the networks are told; the same where
            necks are straight.
        swap: uniform numbers that decide whose condition the mapping is told.
        sampling: random numbers of the ray sampler; None for the middles of even intervals.
    """

    z: Float[Tensor, "batch z_dim"]
    parameters: FlameParameters
    cameras: Float[Tensor, "batch 25"]
    composed: Float[Tensor, "batch 25"]
    swap: Float[Tensor, " batch"]
    sampling: RaySampling | None = None


@dataclass(frozen=True)
class Stage:
    """Where training stands: the values of the schedules at one update.

    Attributes:
        blur_sigma: blur before the discriminator, pixels.
        swap_probability: how often the mapping is told another head's camera and shape.
        render_resolution: side of the volume-rendered image.
    """

    blur_sigma: float
    swap_probability: float
    render_resolution: int


class Objective:
    """The four losses over two networks.

    Args:
        generator: in training.
        discriminator: in training.
        weights: of the losses.
        generator_interval: updates per generator regularisation.
        discriminator_interval: updates per discriminator regularisation.
        noise: per-pixel noise of backbone and background.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        weights: LossWeights | None = None,
        generator_interval: int = 4,
        discriminator_interval: int = 16,
        noise: NoiseMode = "random",
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.weights = weights or LossWeights()
        self.generator_interval, self.discriminator_interval = generator_interval, discriminator_interval
        self.noise = noise

    def generator_main(self, draws: Draws, stage: Stage) -> PhaseLoss:
        """Non-saturating loss, and what keeps the parts apart; means over rays and batch, for eyes and mouth each:

        softplus of the outer field's density times the part's share; distortion of the rays times the share; the
        background's share of the pixel times the part's.
        """
        output, fakes = self.generate(draws, stage)
        scores = self.judge(fakes, stage)
        parts = {"image": generator_loss(scores)}
        behind = 1 - output.opacity.flatten(1)
        spread = ray_distortion(output.rays.depths, output.rays.weights)
        for name, mask, face in (
            ("eyes", output.masks.eyes, output.face_in_eyes),
            ("mouth", output.masks.mouth, output.face_in_mouth),
        ):
            share = mask.flatten(1)
            face_density = (softplus(face) * share[..., None]).mean()
            parts[f"face_in_{name}"] = self.weights.face_in_parts * face_density
            parts[f"distortion_{name}"] = self.weights.distortion * (spread * share).mean()
            parts[f"transparency_{name}"] = self.weights.transparency * (behind * share).mean()
        observed = {"fake": scores.detach(), "generated": output.image.detach()}
        return PhaseLoss(parts, observed)

    def generator_regulariser(
        self,
        draws: Draws,
        stage: Stage,
        points: Float[Tensor, "batch points 3"],
        offsets: Float[Tensor, "batch points 3"],
    ) -> PhaseLoss:
        """Density regulariser, times its interval: mean over the fields of eyes, face and mouth.

        Args:
            draws: of which the first number of ``swap`` decides for the whole batch.
            stage: of training.
            points: uniform in [0, 1). They are spread over [-1, 1], of which the volume fills the middle two thirds;
                the published weight was tuned with that.
            offsets: standard normal.
        """
        planes = self._planes(replace(draws, swap=draws.swap[:1].expand_as(draws.swap)), stage)
        near = 2 * points - 1
        step = PERTURBATION * self.generator.config.box_warp
        both = torch.cat([near, near + step * offsets], dim=1)
        heads = pose_heads(self.generator.head, draws.parameters)
        densities: list[list[Tensor]] = [[], [], []]
        for index, head in enumerate(heads):
            row = slice(index, index + 1)
            field = self.generator.field((planes[0][row], planes[1][row]))
            straight = head.straighten(both[index])
            densities[0].append(field.inner(head.eyes.move(straight)[0])[0])
            densities[1].append(field.outer(head.face.move(straight)[0])[0])
            densities[2].append(field.inner(head.mouth.move(straight)[0])[0])
        pairs = [torch.stack(part).chunk(2, dim=1) for part in densities]
        variation = torch.stack([density_variation(here[..., None], there[..., None]) for here, there in pairs]).mean()
        loss = self.weights.density * self.generator_interval * variation
        return PhaseLoss({"variation": loss}, {"density_variation": variation.detach()})

    def discriminator_main(self, draws: Draws, real: Judged, stage: Stage) -> PhaseLoss:
        """Logistic loss of generated and real images. The only phase that moves the mappings' average w."""
        with torch.no_grad():
            _, fakes = self.generate(draws, stage, update_average=True)
        return self._told_apart(fakes, real, stage)

    @torch.no_grad()
    def validation(self, draws: Draws, real: Judged, stage: Stage) -> PhaseLoss:
        """The discriminator's loss without learning anything from it."""
        return self._told_apart(self.generate(draws, stage)[1], real, stage)

    def discriminator_regulariser(self, real: Judged, stage: Stage) -> PhaseLoss:
        """R1 on real images as the discriminator sees them (that is, blurred), times its interval."""
        return r1(
            self.discriminator,
            replace(real, image=blur(real.image, stage.blur_sigma)),
            image=self.weights.r1_image,
            correspondence=self.weights.r1_correspondence,
            segmentation=self.weights.r1_segmentation,
            interval=self.discriminator_interval,
        )

    def generate(self, draws: Draws, stage: Stage, update_average: bool = False) -> tuple[GenHeadOutput, Judged]:
        """Images, and what the discriminator sees of them."""
        planes = self._planes(draws, stage, update_average)
        backdrop = self.generator.backdrop(draws.z, noise=self.noise, update_average=update_average)
        heads = pose_heads(self.generator.head, draws.parameters)
        camera = camera_of(draws.cameras)
        output = self.generator.render(
            planes, backdrop, heads, camera, render_resolution=stage.render_resolution, sampling=draws.sampling
        )
        vertices = torch.stack([head.vertices for head in heads])
        places = self._correspondence(vertices, draws.cameras)
        return output, Judged(output.image, output.image_raw, draws.composed, places, output.segmentation)

    def real_images(
        self,
        image: Float[Tensor, "batch 3 height width"],
        segmentation: Float[Tensor, "batch 1 height width"],
        parameters: FlameParameters,
        labels: Float[Tensor, "batch 25"],
        stage: Stage,
    ) -> Judged:
        """Real images with what stands beside them for the discriminator.

        Args:
            image: in [-1, 1].
            segmentation: head 1, background -1.
            parameters: fitted heads, their necks straight.
            labels: of the cameras.
            stage: of training; raw image and segmentation are blurred at their own size.
        """
        resolution = stage.render_resolution
        vertices = posed_vertices(self.generator.head, parameters)
        return Judged(
            image,
            blur(resize(image, resolution), stage.blur_sigma),
            labels,
            self._correspondence(vertices, labels),
            blur(resize(segmentation, resolution), stage.blur_sigma),
        )

    def judge(self, images: Judged, stage: Stage) -> Float[Tensor, "batch 1"]:
        """Scores; the full image is blurred first."""
        return replace(images, image=blur(images.image, stage.blur_sigma)).scores(self.discriminator)

    def _correspondence(self, vertices: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            side = self.generator.config.image_resolution
            return correspondence_map(self.generator.head, vertices, camera_of(labels), side)[0]

    def _told_apart(self, fakes: Judged, real: Judged, stage: Stage) -> PhaseLoss:
        fake, seen = self.judge(fakes, stage), self.judge(real, stage)
        return PhaseLoss({"image": discriminator_loss(fake, seen)}, {"fake": fake.detach(), "real": seen.detach()})

    def _planes(self, draws: Draws, stage: Stage, update_average: bool = False) -> PartPlanes:
        told = torch.cat([draws.composed, draws.parameters.shape], dim=1)
        swapped = (draws.swap < stage.swap_probability)[:, None]
        told = torch.where(swapped, told.roll(1, dims=0), told)
        ws = self.generator.mapping(draws.z, camera_of(told[:, :25]), told[:, 25:], update_average=update_average)
        return self.generator.planes(ws, noise=self.noise)
