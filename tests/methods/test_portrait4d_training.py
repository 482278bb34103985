"""What Portrait4D is trained with: laws that hold for any numbers; the reference's numbers are in tests/parity."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from portraitzoo.methods.portrait4d.cameras import around_head, camera_of_label, frontal, label_of_camera
from portraitzoo.methods.portrait4d.curriculum import Curriculum, LossWeights
from portraitzoo.methods.portrait4d.objective import (
    Target,
    identity_loss,
    masked,
    pixels_up,
    reconstruction_losses,
    y_down,
)
from portraitzoo.methods.portrait4d.poses import eye_opening, rectified_necks, teacher_box_scale
from portraitzoo.rendering.cameras import pinhole
from portraitzoo.rendering.volume import bounded_depth, expected_depth


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    torch.manual_seed(0)


def square(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one - other).square().mean(dim=(1, 2, 3))


def perfect(target: Target) -> SimpleNamespace:
    """A frame that is just what it should be."""
    mask = target.mask[:, :1]
    features = masked(target.image, mask)
    return SimpleNamespace(
        image=target.image,
        image_raw=target.image,
        foreground=features,
        background=target.image,
        opacity=(mask + 1) / 2,
        depth=torch.ones_like(mask),
        foreground_features=features,
        background_features=target.image,
    )


def test_nothing_is_lost_on_a_perfect_frame():
    target = Target(
        torch.rand(2, 3, 16, 16) * 2 - 1, (torch.rand(2, 1, 16, 16) > 0.5).float().expand(2, 3, -1, -1) * 2 - 1
    )
    losses = reconstruction_losses(perfect(target), target, square)
    assert losses.keys() == {"perceptual", "l1", "mask"}
    assert all(float(loss) < 1e-6 for loss in losses.values())
    spoiled = perfect(target)
    spoiled.image = -spoiled.image
    assert float(reconstruction_losses(spoiled, target, square)["l1"]) > 0.1


def test_masks_blacken():
    image = torch.rand(1, 3, 4, 4)
    assert masked(image, torch.ones(1, 1, 4, 4)).allclose(image, atol=1e-6)
    assert (masked(image, -torch.ones(1, 1, 4, 4)) == -1).all()


def test_the_same_face_loses_nothing():
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    landmarks = torch.rand(2, 70, 2) * 40 + 10
    loss = identity_loss(image, image, landmarks, lambda crops: crops.mean(dim=(2, 3)))
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_losses_count_when_it_is_their_time():
    times, all_of = Curriculum(), LossWeights()
    early, late, last = (times.weights(images, all_of) for images in (399_999, 400_000, 1_000_000))
    assert (early.identity, early.depth, early.planes, early.adversarial) == (0, 1, 0.1, 0)
    assert (late.identity, late.depth, late.planes, late.adversarial) == (1, 0, 0, 0)
    assert last.adversarial == 0.01 and last.perceptual == all_of.perceptual
    assert times.weights(0, LossWeights(l1=2.0)).l1 == 2


def test_landmarks_count_pixels_upwards_from_below():
    corners = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    up = pixels_up(corners, 64)
    assert up.tolist() == [[[0, 64], [64, 0]]] and y_down(up, 64)[0, 0, 1] == -1


def test_depth_has_gradients_where_nothing_is_seen():
    weights = torch.tensor([[[0.0, 0.0], [0.25, 0.5]]], requires_grad=True)
    depths = torch.tensor([[[1.0, 2.0, 3.0]]]).expand(1, 2, 3)
    depth = bounded_depth(expected_depth(weights, depths), depths)
    assert depth[0, 0] == 3 and float(depth[0, 1].detach()) == pytest.approx((0.25 * 1.5 + 0.5 * 2.5) / 0.75)
    depth.sum().backward()
    assert torch.isfinite(weights.grad).all() and not weights.grad[0, 0].any() and weights.grad[0, 1].all()


@given(first=st.integers(0, 3_000_000), second=st.integers(0, 3_000_000))
def test_renders_never_shrink(first, second):
    low, high = sorted((first, second))
    times = Curriculum()
    assert 64 <= times.render_resolution(low) <= times.render_resolution(high) <= 128
    assert Curriculum(render_start=None, render_end=None).render_resolution(low, own=32) == 32


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_rectified_clips_look_ahead(seed):
    necks = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)) * 0.05
    necks[:, 1] += 0.4
    angles = Rotation.from_rotvec(rectified_necks(necks).double().numpy()).as_euler("xyz").mean(axis=0)
    assert abs(angles[1]) < 0.02


def test_eyes():
    landmarks = torch.zeros(1, 68, 2)
    for corner, (x, y) in {36: (0, 0), 39: (4, 0), 42: (6, 0), 45: (10, 0)}.items():
        landmarks[0, corner] = torch.tensor([x, y])
    for upper, lower, x in ((37, 41, 1), (38, 40, 3), (43, 47, 7), (44, 46, 9)):
        landmarks[0, upper], landmarks[0, lower] = torch.tensor([x, 0.5]), torch.tensor([x, -0.5])
    assert float(eye_opening(landmarks)) == pytest.approx(0.25)
    scale = teacher_box_scale(torch.tensor([0.0, 0.15, 0.3, 2.0]))
    torch.testing.assert_close(scale, torch.tensor([0.97, 0.985, 1.0, 1.0]))


def test_labels_come_back():
    camera = around_head(
        *(torch.linspace(-0.3, 0.3, 4) for _ in range(3)), torch.rand(4, 3) * 0.1, torch.full((4,), 4.0)
    )
    again = camera_of_label(label_of_camera(camera))
    assert again.cam2world.equal(camera.cam2world) and again.intrinsics.equal(camera.intrinsics)


def test_views_without_angles_are_the_frontal_one():
    zero = torch.zeros(1)
    camera = around_head(zero, zero, zero, torch.zeros(1, 3), torch.tensor([4.2]))
    expected = frontal(pinhole(1.0)[None]).cam2world.clone()
    expected[:, 1, 3] = 0
    torch.testing.assert_close(camera.cam2world, expected, atol=1e-5, rtol=0)
