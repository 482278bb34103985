import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.bfm_to_flame import FRONTAL_TURN, BfmToFlame, flame_label, flame_turn
from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.faces.rotations import euler_rotation, rotation_matrix
from portraitzoo.faces.tracked_camera import tracked_camera
from portraitzoo.hub.faces.bfm_to_flame import convert

ANGLE = st.floats(-1.2, 1.2)


def faces(batch: int = 2, **given: torch.Tensor) -> FaceCoefficients:
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(batch, size, generator=generator) * 0.3 for name, size in SIZES.items()}
    return FaceCoefficients(**drawn | given)


@given(x=ANGLE, y=ANGLE, z=ANGLE)
@settings(max_examples=30, deadline=None)
def test_the_turn_is_corrected_for_flames_frontal_pose(x, y, z):
    angles = torch.tensor([[x, y, z]], dtype=torch.float64)
    correction = euler_rotation(torch.tensor(FRONTAL_TURN, dtype=torch.float64))
    expected = correction @ euler_rotation(angles)
    torch.testing.assert_close(rotation_matrix(flame_turn(angles)), expected, atol=1e-6, rtol=0)


def test_angles_turn_about_one_axis_after_the_other():
    quarter = torch.tensor([[math.pi / 2, 0.0, math.pi / 2]])
    moved = euler_rotation(quarter)[0] @ torch.tensor([0.0, 1.0, 0.0])  # about x to z, about z it stays there
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, 1.0]), atol=1e-6, rtol=0)


def test_a_label_looks_at_the_head_from_its_distance():
    label = flame_label(faces())
    cam2world = label[:, :16].unflatten(1, (4, 4))
    world2cam = torch.linalg.inv(cam2world)
    torch.testing.assert_close(world2cam[:, :3, 3], torch.tensor([[0.0, -0.01, -4.2]] * 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(world2cam[:, :3, :3], rotation_matrix(label[:, 425:428]), atol=1e-5, rtol=0)
    assert not label[:, 25:425].any() and not label[:, 428:].any()


def test_the_mapper_fills_shape_expression_and_jaw_only():
    mapper = BfmToFlame(width=8)
    torch.nn.init.ones_(mapper.output.weight)
    bare, mapped = flame_label(faces()), flame_label(faces(), mapper)
    assert bool((mapped[:, 25:425] != 0).all()) and bool((mapped[:, 428:431] != 0).all())
    assert mapped[:, :25].equal(bare[:, :25]) and mapped[:, 425:428].equal(bare[:, 425:428])
    assert not mapped[:, 431:].any()


def test_labels_do_not_depend_on_the_batch():
    mapper, given = BfmToFlame(width=16), faces(5)
    torch.nn.init.normal_(mapper.output.weight)
    whole = flame_label(given, mapper)
    one = flame_label(FaceCoefficients.from_vector(given.vector()[3:4]), mapper)
    torch.testing.assert_close(whole[3:4], one, atol=1e-5, rtol=1e-5)


def test_translation_moves_the_head_in_the_picture():
    label = tracked_camera(torch.zeros(1, 3), torch.tensor([[0.1, 0.0, -4.0]]))
    world2cam = torch.linalg.inv(label[0, :16].reshape(4, 4))
    assert float(world2cam[0, 3]) == pytest.approx(0.1)


def test_what_is_wrong_is_told():
    with pytest.raises(ZooError, match="takes 144 coefficients, not 143"):
        BfmToFlame(8)(torch.zeros(1, 79), torch.zeros(1, 64))
    with pytest.raises(ZooError, match="NaN"):
        flame_label(faces(angles=torch.full((2, 3), math.nan)))
    with pytest.raises(CheckpointError, match=r"maps\.0\.bias"):
        convert({"x": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"lacks the tensor maps\.0\.weight"):
        convert({"maps.0.bias": torch.zeros(4), "maps.2.bias": torch.zeros(403), "maps.2.weight": torch.zeros(403, 4)})
