"""Heads of the studio as GenHead's and Portrait4D's data have them: pictures, masks, and labels of 437 numbers.

The labels hold the free head's parameters (:mod:`~portraitzoo.faces.free_head`) and cameras of their world: FLAME's
axes, three times its metres, the neck joint at the origin. As the authors' cameras nearly do, they see the neck joint
always at the same place, from so far away that heads are of equal size, through a lens of 12 degrees.

PD-FGC's motion embeddings need weights that are not ours to ship. In their place stand the 109 numbers with which
Portrait4D can be driven instead: expression, jaw and eyes
(:meth:`~portraitzoo.faces.flame_parameters.FlameParameters.motion`), which follow from the label as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from portraitzoo.faces.anny import HeadModel
from portraitzoo.faces.flame import SCALE
from portraitzoo.faces.free_head import FreeHead
from portraitzoo.faces.head_maps import map_camera
from portraitzoo.media.portrait_lmdb import ClipRecord
from portraitzoo.preprocess.studio.materials import Label
from portraitzoo.preprocess.studio.motion import Performance, perform
from portraitzoo.preprocess.studio.stage import Subject, render
from portraitzoo.rendering.cameras import Camera

_DISTANCE = 4.2  # of the camera from the neck joint of a head of usual size
_USUAL_SCALE = 2.25  # of the studio's heads
_BELOW_CENTRE = 0.08  # of the neck joint, across the axis of the camera
_MOMENTS = 30  # frames of a performance, of one of which a photo is taken


def photo_session(
    random: np.random.Generator, labels: tuple[str, ...], photos: int, liveliness: float = 1.0
) -> Performance:
    """Poses for photos: each a moment of a performance of its own, seen from its own side.

    Args:
        random: draws the performances.
        labels: of the facial actions.
        photos: how many.
        liveliness: of the faces, see :func:`~portraitzoo.preprocess.studio.motion.perform`.
    """
    moments = []
    for _ in range(photos):
        performance = perform(random, labels, _MOMENTS, liveliness)
        moment = int(random.integers(_MOMENTS))
        moments.append((performance.actions[moment], performance.camera[moment]))
    actions, cameras = zip(*moments, strict=True)
    return Performance(torch.stack(actions), Camera.stack(list(cameras)))


def take_portraits(head: HeadModel, free: FreeHead, subject: Subject, resolution: int, *, neck: bool) -> ClipRecord:
    """Render a subject and label it.

    Args:
        head: the model that the subject was prepared with.
        free: the free head, whose parameters the labels hold.
        subject: who, and what happens; of its cameras the directions count.
        resolution: side of the pictures, pixels.
        neck: whether the labels hold the head's rotation in the neck too (the inverse of the camera's), as Portrait4D
            has it; otherwise the neck is straight.
    """
    shape, shift = free.of_identity(subject.neutral)
    camera = _facing(subject.performance.camera, _DISTANCE * _USUAL_SCALE / subject.scale)
    # The studio's world is another similarity of Anny's metres than that of the labels.
    in_studio = camera.cam2world.clone()
    in_studio[:, :3, 3] = (camera.cam2world[:, :3, 3] - shift) / SCALE * subject.scale + subject.shift
    performance = replace(subject.performance, camera=Camera(in_studio, camera.intrinsics))
    clip = render(head, replace(subject, performance=performance), resolution, maps=True)
    assert clip.segmentation is not None
    person = (clip.segmentation != Label.BACKGROUND)[..., None].expand(-1, -1, -1, 3)
    parameters = free.of_actions(clip.actions, shape)
    if neck:
        pose = torch.cat([_neck(camera), parameters.pose[:, 3:]], dim=1)
        parameters = replace(parameters, pose=pose)
    labels = torch.cat([camera.reversed_axes().label(), parameters.label()], dim=1)
    return ClipRecord(clip.image, person.to(torch.uint8) * 255, labels, parameters.motion())


def _facing(camera: Camera, distance: float) -> Camera:
    """Cameras that look in the same directions, with the neck joint at one place of the picture."""
    cam2world = camera.cam2world.clone()
    joint = torch.tensor([0.0, _BELOW_CENTRE, distance])
    cam2world[:, :3, 3] = -(cam2world[:, :3, :3] @ joint)
    return map_camera(Camera(cam2world, camera.intrinsics))


def _neck(camera: Camera) -> Float[Tensor, "time 3"]:
    """Rotation of the head as an unmoved camera sees it: the inverse of the camera's, axis-angle."""
    turned = camera.reversed_axes().cam2world[:, :3, :3].double().mT
    return torch.from_numpy(Rotation.from_matrix(turned.numpy()).as_rotvec()).float()
