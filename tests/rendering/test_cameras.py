import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import ZooError
from portraitzoo.rendering.cameras import TRAJECTORIES, Camera, trajectory

angles = st.floats(-1.2, 1.2)
cameras = st.builds(Camera.look_at, yaw=angles, pitch=angles, radius=st.floats(1, 5), focal=st.floats(0.5, 8))


@settings(max_examples=30, deadline=None)
@given(cameras)
def test_label_round_trip(camera: Camera) -> None:
    again = Camera.from_label(camera.label())
    assert torch.equal(again.cam2world, camera.cam2world) and torch.equal(again.intrinsics, camera.intrinsics)


@settings(max_examples=30, deadline=None)
@given(cameras)
def test_mirrored_twice_is_the_same_camera(camera: Camera) -> None:
    assert torch.equal(camera.mirrored().mirrored().cam2world, camera.cam2world)


@settings(max_examples=30, deadline=None)
@given(angles, angles)
def test_mirroring_turns_the_other_way(yaw: float, pitch: float) -> None:
    mirrored = Camera.look_at(yaw, pitch).mirrored()
    torch.testing.assert_close(mirrored.cam2world, Camera.look_at(-yaw, pitch).cam2world, rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(cameras)
def test_mirroring_changes_the_sign_of_five_numbers_of_the_label(camera: Camera) -> None:
    before, after = camera.label(), camera.mirrored().label()
    signs = torch.ones(25)
    signs[[1, 2, 3, 4, 8]] = -1
    torch.testing.assert_close(after, before * signs)


@settings(max_examples=30, deadline=None)
@given(yaw=angles, pitch=angles, radius=st.floats(1, 5))
def test_look_at_is_a_rotation_that_sees_its_target_in_the_middle(yaw: float, pitch: float, radius: float) -> None:
    target = torch.tensor([0.0, 0.0, 0.2])
    camera = Camera.look_at(yaw, pitch, radius)
    rotation, position = camera.cam2world[:3, :3], camera.cam2world[:3, 3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3), rtol=1e-4, atol=1e-4)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1, abs=1e-4)
    assert float(position.norm()) == pytest.approx(radius, rel=1e-4)
    in_camera = rotation.T @ (target - position)
    torch.testing.assert_close(in_camera[:2], torch.zeros(2), rtol=0, atol=1e-4)
    assert in_camera[2] > 0
    assert rotation[1, 1] <= 1e-6  # the image's y axis points down


def test_yaw_moves_to_plus_x_and_pitch_down() -> None:
    assert Camera.look_at(0.3, 0.0).cam2world[0, 3] > 0
    assert Camera.look_at(0.0, 0.3).cam2world[1, 3] < 0
    front = Camera.look_at(0.0, 0.0, target=(0.0, 0.0, 0.0))
    torch.testing.assert_close(front.cam2world, Camera.canonical().cam2world, rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(TRAJECTORIES)), st.integers(1, 20))
def test_trajectories_have_one_good_camera_per_frame(name: str, num_frames: int) -> None:
    camera = trajectory(name, num_frames)
    assert len(camera) == num_frames and camera.shape == (num_frames,)
    assert camera[0].shape == () and camera[1:].shape == (num_frames - 1,)
    rotation = camera.cam2world[:, :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).expand(num_frames, 3, 3), rtol=1e-4, atol=1e-4)


def test_angles_may_be_batched() -> None:
    yaw = torch.linspace(-0.5, 0.5, 6).reshape(2, 3)
    camera = Camera.look_at(yaw, 0.1)
    assert camera.shape == (2, 3)
    torch.testing.assert_close(camera.cam2world[1, 2], Camera.look_at(0.5, 0.1).cam2world)


def test_bad_cameras_are_refused() -> None:
    with pytest.raises(ZooError, match="25 numbers"):
        Camera.from_label(torch.zeros(24))
    with pytest.raises(ZooError, match="one batch shape"):
        Camera(torch.eye(4).expand(2, 4, 4), torch.eye(3))
    with pytest.raises(ZooError, match="NaN"):
        Camera(torch.full((4, 4), math.nan), torch.eye(3))
    with pytest.raises(ZooError, match="unknown trajectory"):
        trajectory("spiral", 3)
    with pytest.raises(ZooError, match="at least 1 frame"):
        trajectory("orbit", 0)
