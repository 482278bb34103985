import pytest
import torch

from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.neck_field import NEAR, SHARPNESS, NeckField, follow_faces, smoothed
from portraitzoo.methods.portrait4d.benchmark import shape_ellipsoid
from portraitzoo.rendering.voxels import interpolate_cells

SIDE = 1.3


@pytest.fixture(scope="module")
def head() -> FlameHead:
    head = FlameHead(HeadSizes(vertices=420, faces=8, coarse_vertices=400, coarse_faces=760))
    shape_ellipsoid(head)
    return head


def turned(*necks: tuple[float, float, float]) -> FlameParameters:
    straight = FlameParameters.zeros(len(necks))
    pose = torch.cat([torch.tensor(necks), torch.zeros(len(necks), 3)], dim=1)
    return FlameParameters(straight.shape, straight.expression, pose, straight.eye_pose)


def test_the_skin_goes_back_to_where_it_was(head):
    parameters = turned((0.1, 0.4, -0.1), (0.0, -0.3, 0.2))
    posed = head.coarse(head.flame(*parameters))
    straight = head.coarse(head.flame(*parameters.without_neck()))
    assert float((posed - straight).abs().max()) > 0.08
    found = NeckField.of(head, parameters, SIDE)(posed)
    assert float((found - straight).abs().max()) < 2e-3


def test_straight_necks_move_nothing(head):
    points = (torch.rand(1, 200, 3) - 0.5) * SIDE
    assert NeckField.of(head, turned((0.0, 0.0, 0.0)), SIDE)(points).equal(points)


def test_a_head_does_not_depend_on_the_others(head):
    necks = (0.1, 0.4, -0.1), (0.0, -0.3, 0.2), (0.0, 0.0, 0.0)
    together = NeckField.of(head, turned(*necks), SIDE)
    for row, neck in enumerate(necks):
        alone = NeckField.of(head, turned(neck), SIDE)
        assert together[row : row + 1].fine.equal(alone.fine) and together[row : row + 1].coarse.equal(alone.coarse)


def test_both_grids_are_looked_up_at_once(head):
    """Between the centres, beyond the outermost of either grid, and where nothing moves any more."""
    field = NeckField.of(head, turned((0.1, 0.4, -0.1), (0.0, -0.3, 0.2)), SIDE)
    points = (torch.rand(2, 5000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 1.6 * SIDE
    offset, distance = interpolate_cells(field.fine, points, SIDE).split([3, 1], dim=-1)
    coarse = interpolate_cells(field.coarse, points, SIDE)
    expected = points + torch.lerp(coarse, offset, torch.exp(-SHARPNESS * (distance - NEAR).relu()))
    torch.testing.assert_close(field(points), expected, atol=1e-6, rtol=0)


def test_far_points_stay(head):
    far = torch.tensor([[[2.0, 0.0, 0.0], [0.0, -1.5, 3.0]]])
    assert NeckField.of(head, turned((0.0, 0.5, 0.0)), SIDE)(far).equal(far)


def test_followers_keep_their_height_above_a_face():
    triangle = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    moved = triangle[:, [2, 0, 1]] + torch.tensor([1.0, 2.0, 3.0])
    point = torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(follow_faces(point, triangle, moved), point[[2, 0, 1]] + torch.tensor([1.0, 2.0, 3.0]))


def test_smoothing_keeps_what_is_even():
    even = torch.full((1, 3, 4, 4, 4), 2.5)
    torch.testing.assert_close(smoothed(even), even)
