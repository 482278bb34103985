"""Portrait4D's training phases as functions of explicit inputs: what is random is an argument.

One update of the reconstructor G and, once there is one, the discriminator D runs, in this order (CVPR 2024, section
3.4; ECCV 2024, section 3.3; lazy regularisation as in StyleGAN2):

1. generator main: frames are what they should be, and fool D;
2. generator regulariser: densities vary little over short distances, or, in v2, new views look like a teacher's;
3. discriminator main: D tells frames of G from pictures;
4. discriminator regulariser: R1 on pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.head_maps import correspondence_map, landmarks_in_image
from portraitzoo.layers.resampling import resize
from portraitzoo.methods.portrait4d.cameras import label_of_camera
from portraitzoo.methods.portrait4d.curriculum import LossWeights
from portraitzoo.methods.portrait4d.discriminator import Discriminator
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor
from portraitzoo.methods.portrait4d.objective import (
    Target,
    identity_loss,
    masked,
    pixels_up,
    reconstruction_losses,
)
from portraitzoo.methods.portrait4d.perception import Perception
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.volume import RaySampling
from portraitzoo.training.adversarial import discriminator_loss, generator_loss
from portraitzoo.training.judged import Judged, r1
from portraitzoo.training.phases import PhaseLoss
from portraitzoo.training.regularisers import density_variation

PERTURBATION = 0.004
"""Distance over which the density regulariser compares densities, in units of the box of the tri-planes."""


@dataclass(frozen=True)
class Stage:
    """Where training stands.

    Attributes:
        weights: that count now.
        render_resolution: side of the volume-rendered image.
    """

    weights: LossWeights
    render_resolution: int


@dataclass(frozen=True)
class Task:
    """Photos to move, and what comes of them.

    Attributes:
        image: photos in [-1, 1].
        motion_source: their motion embeddings.
        motion_drive: those of the driving frames.
        scale: of what motions contribute, each 0 or 1.
        head: heads in the pose of the frames: shape of the photo, all else of the driving frame.
        camera: that sees them, batch shape [batch].
        composed: camera that would see them so with straight necks; the discriminator is told this one.
        target: what the frames should be.
    """

    image: Float[Tensor, "batch 3 height width"]
    motion_source: Float[Tensor, "batch motion_dim"]
    motion_drive: Float[Tensor, "batch motion_dim"]
    scale: Float[Tensor, "batch 1 1"]
    head: FlameParameters
    camera: Camera
    composed: Camera
    target: Target


@dataclass(frozen=True)
class NewView:
    """A view of the task's heads with straight necks, and what a frozen static network makes of it.

    Attributes:
        camera: that sees it.
        image: the teacher's frame of the driving picture,
        mask: and its mask in [-1, 1].
    """

    camera: Camera
    image: Float[Tensor, "batch 3 height width"]
    mask: Float[Tensor, "batch 1 raw raw"]


class Objective:
    """The four losses over two networks.

    Args:
        generator: in training.
        discriminator: in training.
        perception: networks that losses look through.
        generator_interval: updates per generator regularisation.
        discriminator_interval: updates per discriminator regularisation.
    """

    def __init__(
        self,
        generator: Reconstructor,
        discriminator: Discriminator,
        perception: Perception,
        generator_interval: int = 16,
        discriminator_interval: int = 16,
    ) -> None:
        self.generator, self.discriminator, self.perception = generator, discriminator, perception
        self.generator_interval, self.discriminator_interval = generator_interval, discriminator_interval

    def generator_main(self, task: Task, stage: Stage, sampling: RaySampling) -> PhaseLoss:
        """Distances of frames from their targets, and the non-saturating loss of the discriminator."""
        output, planes = self.generate(task, stage, sampling)
        parts = self.distances(output, task, stage, planes)
        observed = {"generated": output.image.detach()}
        if stage.weights.adversarial:
            scores = self._frames(output, task).scores(self.discriminator)
            parts["adversarial"] = stage.weights.adversarial * generator_loss(scores)
            observed["fake"] = scores.detach()
        return PhaseLoss(parts, observed)

    def distances(
        self, output: Portrait4DOutput, task: Task, stage: Stage, planes: Float[Tensor, "batch 3 channels size size"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted distances of frames from their targets; those of weight 0 are left out.

        Args:
            output: frames.
            task: with their targets.
            stage: of training.
            planes: tri-planes of the frames.
        """
        weights, looks = stage.weights, self.perception
        found = reconstruction_losses(
            output,
            task.target,
            looks.distance if weights.perceptual else None,
            planes=planes if weights.planes else None,
            box_warp=self.generator.config.box_warp,
        )
        if weights.identity:
            landmarks = pixels_up(self._landmarks(task), output.image.shape[-1])
            found["identity"] = identity_loss(output.image, task.target.image, landmarks, looks.identity)
        weighted = {name: loss * getattr(weights, name) for name, loss in found.items()}
        return {name: loss for name, loss in weighted.items() if getattr(weights, name)}

    def density_regulariser(
        self,
        task: Task,
        stage: Stage,
        points: Float[Tensor, "batch points 3"],
        offsets: Float[Tensor, "batch points 3"],
    ) -> PhaseLoss:
        """Mean difference of raw densities at points and beside them, times the interval.

        Args:
            task: photos and motions.
            stage: of training.
            points: uniform in [0, 1). They are spread over [-1, 1], of which the volume fills the middle two thirds;
                the published weight was tuned with that.
            offsets: standard normal.
        """
        source = self.generator.encode(task.image, task.motion_source, task.scale)
        planes = self.generator.planes(source, task.motion_drive, task.scale)
        here = 2 * points - 1
        there = here + PERTURBATION * self.generator.config.box_warp * offsets
        density, _ = self.generator.field(torch.cat([here, there], dim=1), planes)
        variation = density_variation(*density.chunk(2, dim=1))
        loss = stage.weights.density * self.generator_interval * variation
        return PhaseLoss({"density": loss}, {"density_variation": variation.detach()})

    def multiview_regulariser(self, task: Task, stage: Stage, view: NewView, sampling: RaySampling) -> PhaseLoss:
        """Distance of heads in new views from the teacher's, times the interval (v2, section 3.3).

        The distance is LPIPS, or the mean absolute difference where the perceptual loss has weight 0.

        Args:
            task: photos and motions.
            stage: of training.
            view: what the teacher sees.
            sampling: random numbers of the ray sampler.
        """
        source = self.generator.encode(task.image, task.motion_source, task.scale)
        planes = self.generator.planes(source, task.motion_drive, task.scale)
        resolution = stage.render_resolution
        output = self.generator.render(planes, source, view.camera, render_resolution=resolution, sampling=sampling)
        side = output.image.shape[-1]
        ours = masked(output.image, resize(2 * output.opacity - 1, side))
        wanted = masked(view.image, resize(view.mask, side))
        if stage.weights.perceptual:
            distance = self.perception.distance(ours, wanted).mean()
        else:
            distance = (ours - wanted).abs().mean()
        loss = stage.weights.multiview * self.generator_interval * distance
        return PhaseLoss({"multiview": loss}, {"view_distance": distance.detach()})

    def discriminator_main(self, task: Task, stage: Stage, sampling: RaySampling) -> PhaseLoss:
        """Logistic loss of frames, generated anew, and pictures."""
        with torch.no_grad():
            output, _ = self.generate(task, stage, sampling)
        fake = self._frames(output, task).scores(self.discriminator)
        real = self._pictures(task, stage).scores(self.discriminator)
        return PhaseLoss({"image": discriminator_loss(fake, real)}, {"fake": fake.detach(), "real": real.detach()})

    def discriminator_regulariser(self, task: Task, stage: Stage) -> PhaseLoss:
        """R1 on pictures, times its interval."""
        weights = stage.weights
        return r1(
            self.discriminator,
            self._pictures(task, stage),
            image=weights.r1_image,
            correspondence=weights.r1_correspondence,
            segmentation=weights.r1_segmentation,
            interval=self.discriminator_interval,
        )

    def generate(
        self, task: Task, stage: Stage, sampling: RaySampling
    ) -> tuple[Portrait4DOutput, Float[Tensor, "batch 3 channels size size"]]:
        """Frames of a task, and their tri-planes."""
        source = self.generator.encode(task.image, task.motion_source, task.scale)
        planes = self.generator.planes(source, task.motion_drive, task.scale)
        output = self.generator.render(
            planes,
            source,
            task.camera,
            self.generator.neck_field(task.head),
            render_resolution=stage.render_resolution,
            sampling=sampling,
        )
        return output, planes

    def _frames(self, output: Portrait4DOutput, task: Task) -> Judged:
        label = label_of_camera(task.composed)
        return Judged(output.image, output.image_raw, label, self._correspondence(task), 2 * output.opacity - 1)

    def _pictures(self, task: Task, stage: Stage) -> Judged:
        image, label = task.target.image, label_of_camera(task.composed)
        mask = task.target.mask.mean(dim=1, keepdim=True)
        return Judged(image, resize(image, stage.render_resolution), label, self._correspondence(task), mask)

    @torch.no_grad()
    def _correspondence(self, task: Task) -> Tensor:
        head = self.generator.head
        return correspondence_map(head, head.flame(*task.head), task.camera, self.generator.config.image_resolution)[0]

    @torch.no_grad()
    def _landmarks(self, task: Task) -> Tensor:
        head = self.generator.head
        return landmarks_in_image(head, head.flame(*task.head), task.camera)
