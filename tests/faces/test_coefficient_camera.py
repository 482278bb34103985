import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import ZooError
from portraitzoo.faces.coefficient_camera import WORLD_SCALE, WORLD_SHIFT, camera_of_pose
from portraitzoo.faces.rotations import euler_rotation

angle = st.floats(-0.8, 0.8)


@given(turn=st.tuples(angle, angle, angle), shift=st.tuples(*[st.floats(-0.5, 0.5)] * 3))
@settings(max_examples=30, deadline=None)
def test_the_standing_head_looks_as_the_moved_one(turn, shift):
    angles, translation = torch.tensor([turn]).double(), torch.tensor([shift]).double()
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).double()
    # The coefficients' camera: points turned, moved, seen from 10 in front; x right, y up.
    moved = points @ euler_rotation(angles)[0].mT + translation
    expected = torch.stack([moved[:, 0], -moved[:, 1]], dim=1) / (10 - moved[:, 2:])
    camera = camera_of_pose(angles, translation, radius=None)
    world = points * WORLD_SCALE + torch.tensor(WORLD_SHIFT).double()
    local = (world - camera.cam2world[0, :3, 3]) @ camera.cam2world[0, :3, :3]
    torch.testing.assert_close(local[:, :2] / local[:, 2:], expected, atol=1e-6, rtol=1e-5)


def test_a_frontal_face_is_seen_from_straight_ahead():
    camera = camera_of_pose(torch.zeros(1, 3), torch.zeros(1, 3), center=(0.0, 0.006, 0.0))
    torch.testing.assert_close(camera.cam2world[0, :3, 3], torch.tensor([0.0, 0.006, 2.7]))
    torch.testing.assert_close(camera.cam2world[0, :3, :3], torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    assert camera.label().shape == (1, 25)


@pytest.mark.parametrize(
    ("angles", "says"), [(torch.zeros(2, 3), "3 numbers"), (torch.full((1, 3), math.nan), "NaN")], ids=["two", "nan"]
)
def test_what_is_no_pose(angles, says):
    with pytest.raises(ZooError, match=says):
        camera_of_pose(angles, torch.zeros(1, 3))
