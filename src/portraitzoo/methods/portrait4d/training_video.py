"""Training Portrait4D on real clips (v2): a frame drives the photo of another frame, and is what it should become."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.head_maps import landmarks_in_image
from portraitzoo.faces.head_pose import camera_for_neck
from portraitzoo.hub.loading import load
from portraitzoo.methods.genhead.training import HeadSource, load_head  # the one family that this one may import
from portraitzoo.methods.portrait4d.cameras import FOCAL, camera_of_label
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.curriculum import Curriculum
from portraitzoo.methods.portrait4d.data import FramePairBatch
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.network import Portrait4DOutput, Reconstructor
from portraitzoo.methods.portrait4d.objective import Target, pixels_up, y_down
from portraitzoo.methods.portrait4d.phases import NewView, Task
from portraitzoo.methods.portrait4d.poses import eye_opening, teacher_box_scale
from portraitzoo.methods.portrait4d.training import GREG, VIEWS, Portrait4DTraining
from portraitzoo.methods.portrait4d.training_views import NUMBERS, random_views
from portraitzoo.rendering.cameras import LABEL_SIZE, Camera, pinhole
from portraitzoo.training.frozen import Frozen
from portraitzoo.training.phases import PhaseLoss

SETTLED = Curriculum(0, 0, 0, None, None, 0, 0)
"""All losses count and the volume rendering has its size from the first image on."""
EYE_CAMERA_DISTANCE = 4.0
"""From where the openness of eyes is measured, world units."""


class VideoTraining(Portrait4DTraining):
    """Cross-view self-reenactment on clips (Deng et al., ECCV 2024, "Portrait4D-v2", section 3).

    With a teacher, a frozen static reconstructor, the driving motion is mostly read off a view of the driving frame
    that the teacher makes up, so that motion embeddings tell nothing of the pose; and frames of new views are held
    to the teacher's. Without one this is plain self-reenactment, which needs no ready network if the perceptual and
    the identity loss have weight 0; densities are regularised instead.

    Args:
        head: the parametric head of a network that starts fresh: ``flame`` (from FLAME's files), or the free head,
            ``full`` or ``small``.
        teacher: static reconstructor: an entry of the index, a folder in our format, or a run; None for none.
        novel_views: how often the driving motion is that of a view that the teacher makes up.
        necks: ``turned``, as published: necks turn as in the clips, apart from what :func:`rectified_necks` takes away;
            ``straight``: the whole pose of a head is in the camera, as in training on synthesised data, which takes a
            third of the time on a CPU.
        init_from: what to start from; v2 starts from Portrait4D-static.
        curriculum: when losses count.
        cross_lr_scale: how much larger the learning rate of the layers is that motion enters by.
        generator_interval: updates per regularisation of the reconstructor.
        ema_rampup: the average's half life is at most this share of the samples seen.
        shared: further arguments of :class:`Portrait4DTraining`.

    Raises:
        CheckpointError: if ``init_from`` or ``teacher`` do not fit.
        ZooError: if a name is unknown, or there is no head.
    """

    def __init__(
        self,
        head: HeadSource | None = None,
        teacher: str | None = None,
        novel_views: float = 0.9,
        necks: Literal["turned", "straight"] = "turned",
        init_from: str | None = None,
        curriculum: Curriculum = SETTLED,
        cross_lr_scale: float = 2.5,
        generator_interval: int = 4,
        ema_rampup: float | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(
            head=None if head is None or init_from else load_head(head),
            init_from=init_from,
            curriculum=curriculum,
            cross_lr_scale=cross_lr_scale,
            generator_interval=generator_interval,
            ema_rampup=ema_rampup,
            **shared,
        )
        self.teacher_name, self.novel_views, self.necks = teacher, novel_views, necks
        self.teacher = None if teacher is None else Frozen(_teacher(teacher, self.config))

    def needs(self) -> dict[str, bool]:
        """PD-FGC too, to look at views of the teacher."""
        return super().needs() | {"motion": self.teacher is not None and self.novel_views > 0}

    def record(self) -> dict[str, Any]:
        """What the teacher is and how necks are, too."""
        return super().record() | {"teacher": self.teacher_name, "necks": self.necks}

    @torch.no_grad()
    def task(self, batch: FramePairBatch, purpose: int) -> Task:
        """Make of each photo the driving frame."""
        if batch.driving_motion.shape[1] != self.config.motion_dim:
            raise ZooError(
                f"the data's motions have {batch.driving_motion.shape[1]} numbers, the network wants "
                f"{self.config.motion_dim}: change motion_dim, or `motion` of the data"
            )
        composed, own = self._tracked(batch.driving_label)
        head = dataclasses.replace(own, shape=self._tracked(batch.source_label)[1].shape)
        drive = batch.driving_motion
        if self.teacher is not None and self.novel_views > 0:
            drive = self._motion_of_other_view(batch, own, purpose)
        return Task(
            image=batch.source,
            motion_source=batch.source_motion,
            motion_drive=drive,
            scale=drive.new_ones(len(drive), 1, 1),
            head=head,
            camera=self._turned(composed, head),
            composed=composed,
            target=Target(batch.driving, batch.mask),
        )

    def generator_regulariser(self, batch: FramePairBatch) -> PhaseLoss:
        """New views look like the teacher's; without one, densities vary little over short distances."""
        if self.teacher is None:
            return super().generator_regulariser(batch)
        view = self.new_view(batch)
        sampling = self.sampling(GREG, batch)
        return self.objective.multiview_regulariser(self.task(batch, GREG), self.stage, view, sampling)

    @torch.no_grad()
    def new_view(self, batch: FramePairBatch) -> NewView:
        """The driving heads with straight necks, as the teacher sees them from a random camera.

        The teacher's tri-planes cover a little less space where eyes are closed (v2, supplement).
        """
        uniforms = self._uniforms(VIEWS, batch)
        camera = random_views(uniforms[:, :NUMBERS])
        generator, straight = self.generator.head, self._tracked(batch.driving_label)[1].without_neck()
        front = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        front[2, 3] = EYE_CAMERA_DISTANCE
        eye = Camera(front, pinhole(FOCAL)).expand(len(straight)).to(self.device)
        opening = eye_opening(landmarks_in_image(generator, generator.flame(*straight), eye))
        output = self._taught(batch, camera, FlameParameters.zeros(len(straight), self.device), opening)
        return NewView(camera, output.image, 2 * output.opacity - 1)

    def _motion_of_other_view(self, batch: FramePairBatch, own: FlameParameters, purpose: int) -> Tensor:
        uniforms = self._uniforms(VIEWS + 1 + purpose, batch)
        rows = (uniforms[:, NUMBERS] < self.novel_views).nonzero()[:, 0]
        drive = batch.driving_motion.clone()
        if len(rows):
            some = FramePairBatch(*(value[rows] for value in batch))
            camera = self._turned(random_views(uniforms[rows, :NUMBERS]), own[rows])
            image = self._taught(some, camera, own[rows]).image
            head = self.generator.head
            landmarks = landmarks_in_image(head, head.flame(*own[rows]), camera)
            size = image.shape[-1]
            drive[rows] = self.perception.motion(image, y_down(pixels_up(landmarks, size), size))
        return drive

    def _taught(
        self, batch: FramePairBatch, camera: Camera, head: FlameParameters, opening: Tensor | None = None
    ) -> Portrait4DOutput:
        """The driving frames as the teacher renders them."""
        assert self.teacher is not None
        teacher = self.teacher.on(self.device)
        source = teacher.encode(batch.driving, batch.driving_motion, 0.0)
        planes = teacher.planes(source, batch.driving_motion, 0.0)
        return teacher.render(
            planes,
            source,
            camera,
            teacher.neck_field(head),
            box_scale=1.0 if opening is None else teacher_box_scale(opening)[:, None, None],
            render_resolution=self.stage.render_resolution,
        )

    def _turned(self, composed: Camera, head: FlameParameters) -> Camera:
        """Cameras that see turned necks as ``composed`` sees straight ones."""
        flame = self.generator.head.flame
        cam2world = camera_for_neck(flame, composed.cam2world, head.shape, head.expression, head.pose)
        return Camera(cam2world, composed.intrinsics)

    def _tracked(self, labels: Tensor) -> tuple[Camera, FlameParameters]:
        head = FlameParameters.from_label(labels[:, LABEL_SIZE:])
        return camera_of_label(labels[:, :LABEL_SIZE]), head if self.necks == "turned" else head.without_neck()

    def _uniforms(self, purpose: int, batch: FramePairBatch) -> Tensor:
        generators = self.generators(purpose, batch)
        return torch.stack([torch.rand(NUMBERS + 1, generator=one, device=one.device) for one in generators])


def _teacher(name: str, config: Portrait4DConfig) -> Reconstructor:
    model = load(name, "cpu")
    if not isinstance(model, Portrait4D):
        raise CheckpointError(f"the teacher {name} is no Portrait4D: take a static one")
    for item in ("image_resolution", "motion_dim"):
        theirs, ours = getattr(model.config, item), getattr(config, item)
        if theirs != ours:
            raise CheckpointError(f"the teacher {name} has {item} {theirs}, the network {ours}: they must agree")
    return model.generator
