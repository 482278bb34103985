"""Heads of the studio with labels: what the labels say is what the pictures show (slow: it needs Anny's model)."""

from dataclasses import replace

import pytest
import torch

from portraitzoo.faces.anny import load_head
from portraitzoo.faces.flame_parameters import HEAD_MOTION, FlameParameters
from portraitzoo.faces.free_head import load_free_head
from portraitzoo.faces.rotations import rotation_matrix
from portraitzoo.media.portrait_lmdb import ClipRecord
from portraitzoo.preprocess.portrait_heads import photo_session, take_portraits
from portraitzoo.preprocess.studio.noise import stream
from portraitzoo.preprocess.studio.stage import prepare
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rasterisation import project, rasterise

torch.set_num_threads(1)
pytestmark = pytest.mark.slow

SIDE = 96


def take(seed: int, index: int, *, neck: bool, bald: bool = False) -> ClipRecord:
    head = load_head()
    subject = prepare(head, seed, index, 1)
    if bald:
        subject = replace(subject, style=replace(subject.style, coverage=0.0))
    photos = photo_session(stream(seed, index, "photos"), head.action_labels, 3)
    return take_portraits(head, load_free_head(), replace(subject, performance=photos), SIDE, neck=neck)


def read(clip: ClipRecord) -> tuple[Camera, FlameParameters]:
    return Camera.from_label(clip.labels[:, :25]).reversed_axes(), FlameParameters.from_label(clip.labels[:, 25:])


def test_the_head_of_the_label_lies_on_the_head_of_the_picture() -> None:
    clip = take(3, 1, neck=False, bald=True)
    camera, parameters = read(clip)
    flame = load_free_head().head.flame
    vertices = flame(*parameters)
    covered = rasterise(vertices, flame.faces, camera, SIDE).covered
    person = clip.segmentations[..., 0] == 255
    landmarks = project(flame.landmarks(vertices), camera)[0] * SIDE
    for frame in range(len(covered)):
        rows = slice(0, int(landmarks[frame, 48:68, 1].amax()))  # below the mouth long clothes may hide the neck
        both, either = ((covered & person)[frame, rows].sum(), (covered | person)[frame, rows].sum())
        # A head that is a pixel off covers at least 2 % other pixels.
        assert both > 0.99 * either
    grey = clip.images.float().mean(-1)
    for frame, eyes in enumerate(landmarks[:, 68:].long()):
        for column, row in eyes.tolist():
            pupil = grey[frame, row - 1 : row + 2, column - 1 : column + 2].amin()
            around = grey[frame, row - 5 : row + 6, column - 5 : column + 6]
            assert pupil < around.quantile(0.15), "the pupil is the darkest of the eye"


def test_cameras_are_as_the_authors_are() -> None:
    clip = take(3, 2, neck=False)
    camera, parameters = read(clip)
    assert torch.equal(parameters.pose[:, :3], torch.zeros(3, 3)), "the head's pose is in the camera alone"
    distances = clip.labels[:, [3, 7, 11]].norm(dim=1)
    assert ((distances > 3.5) & (distances < 5)).all()
    torch.testing.assert_close(camera.intrinsics[:, 0, 0], torch.full((3,), 4.7572), atol=1e-4, rtol=0)
    joint = project(torch.zeros(3, 1, 3), camera)[0]
    assert (joint - torch.tensor([0.5, 0.5])).abs().max() < 0.15
    assert (joint - joint[:1]).abs().max() < 1e-4
    assert (clip.labels[:, 325:425].std(0) > 0).any(), "expressions differ"
    assert torch.equal(clip.motions, parameters.motion())
    assert clip.motions.shape == (3, HEAD_MOTION)
    assert set(clip.segmentations.unique().tolist()) == {0, 255}


def test_portrait4ds_labels_hold_the_rotation_twice() -> None:
    clip, straight = take(3, 2, neck=True), take(3, 2, neck=False)
    rotation = clip.labels[:, :16].view(-1, 4, 4)[:, :3, :3]
    torch.testing.assert_close(rotation_matrix(clip.labels[:, 425:428]), rotation.mT, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.labels[:, :425], straight.labels[:, :425])
    assert torch.equal(clip.images, straight.images)
