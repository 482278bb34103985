"""Laws of the parametric head: what no pose, a rigid turn, a blink do; its precision; parameters that are refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_head import toy_arrays

from portraitzoo.errors import ZooError
from portraitzoo.faces.flame import FLAME, JAW, LEFT_EYE, NECK, SCALE, contour_row
from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.faces.flame_parameters import HEAD_MOTION, FlameParameters
from portraitzoo.faces.head_maps import correspondence_map, part_mask, with_eyelids
from portraitzoo.faces.head_pose import camera_for_neck
from portraitzoo.faces.parametric import ParametricHead
from portraitzoo.faces.rotations import bounded_rotation, rotation_matrix, unbounded_rotation
from portraitzoo.faces.skinning import linear_blend_skinning
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rasterisation import project

torch.set_num_threads(1)
SEEDS = st.integers(0, 2**31)
ANGLES = st.tuples(*[st.floats(-1.5, 1.5)] * 3)


@pytest.fixture(scope="module")
def head() -> FlameHead:
    return FlameHead.from_arrays(toy_arrays())


def draw(seed: int, batch: int = 2) -> FlameParameters:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((300, 1.0), (100, 1.0), (6, 0.3), (6, 0.3))
    return FlameParameters(*(scale * torch.randn(batch, size, generator=generator) for size, scale in sizes))


def test_no_parameters_give_the_template(head: FlameHead) -> None:
    vertices = head.flame(*FlameParameters.zeros(2))
    torch.testing.assert_close(vertices, head.flame.v_template.expand(2, -1, -1), atol=1e-6, rtol=0)


def test_the_canonical_head_hangs_on_its_neck_and_is_three_times_as_large(head: FlameHead) -> None:
    vertices, joints = head.flame.posed(*head.flame.canonical_parameters())
    torch.testing.assert_close(joints[0, NECK], torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(vertices[0], head.canonical, atol=1e-6, rtol=0)
    arrays = toy_arrays()
    size = torch.tensor(arrays.v_template.max(0) - arrays.v_template.min(0)) * SCALE
    template = head.flame.v_template
    torch.testing.assert_close((template.amax(0) - template.amin(0)).double(), size, atol=1e-6, rtol=0)


@given(seed=SEEDS, step=st.floats(0.1, 3))
@settings(max_examples=10, deadline=None)
def test_identity_and_expression_are_linear(head: FlameHead, seed: int, step: float) -> None:
    p = draw(seed)
    zeros = FlameParameters.zeros(2)
    still = head.flame(*zeros)
    one = head.flame(p.shape, p.expression, zeros.pose) - still
    more = head.flame(step * p.shape, step * p.expression, zeros.pose) - still
    torch.testing.assert_close(more, step * one, atol=1e-5, rtol=1e-4)
    moved = torch.einsum("vck,bk->bvc", head.flame.expression_basis, p.expression)
    torch.testing.assert_close(head.flame(zeros.shape, p.expression, zeros.pose) - still, moved, atol=1e-5, rtol=1e-4)


@given(angles=ANGLES, seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_one_joint_is_a_rigid_motion(angles: tuple[float, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices, joints = torch.randn(1, 30, 3, generator=generator), torch.randn(1, 2, 3, generator=generator)
    turn = rotation_matrix(torch.tensor(angles))
    rotations = torch.stack([turn, torch.eye(3)])[None]
    weights = torch.rand(30, 2, generator=generator)
    weights = weights / weights.sum(1, keepdim=True)
    moved, placed = linear_blend_skinning(vertices, joints, rotations, [-1, 0], weights)
    expected = (vertices - joints[:, :1]) @ turn.T + joints[:, :1]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        placed[:, 1], (joints[:, 1] - joints[:, 0]) @ turn.T + joints[:, 0], atol=1e-5, rtol=1e-5
    )


@given(angles=ANGLES)
@settings(max_examples=20, deadline=None)
def test_eyeballs_turn_about_their_centres_and_nothing_else_does(head: FlameHead, angles: tuple[float, ...]) -> None:
    zeros = FlameParameters.zeros(1)
    gaze = torch.cat([torch.tensor([angles]), torch.zeros(1, 3)], dim=1)
    still, joints = head.flame.posed(*zeros)
    flame = FLAME.from_arrays(toy_arrays())
    flame.posedirs.zero_()
    turned = flame(zeros.shape, zeros.expression, zeros.pose, gaze)
    others = torch.cat([head.head, head.right_eyeball])
    torch.testing.assert_close(turned[:, others], still[:, others], atol=1e-5, rtol=0)
    centre = joints[:, LEFT_EYE, None]
    expected = (still[:, head.left_eyeball] - centre) @ rotation_matrix(torch.tensor(angles)).T + centre
    torch.testing.assert_close(turned[:, head.left_eyeball], expected, atol=1e-5, rtol=0)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_head_is_the_same_in_any_batch(head: FlameHead, seed: int) -> None:
    p = draw(seed, 3)
    together = head.flame(*p)
    for row in range(3):
        torch.testing.assert_close(head.flame(*p[row : row + 1])[0], together[row], atol=1e-6, rtol=1e-5)


def test_bf16_moves_no_skin(head: FlameHead) -> None:
    p = draw(1)
    expected = head.flame(*p)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(head.flame(*p), expected, atol=0, rtol=0)
    half = FlameHead.from_arrays(toy_arrays()).bfloat16()
    vertices = half.flame(*p.to(dtype=torch.bfloat16))
    assert vertices.dtype == torch.float32
    assert (vertices - expected).abs().max() < 0.03


def test_gradients_reach_every_parameter(head: FlameHead) -> None:
    p = [value.requires_grad_() for value in draw(2)]
    for gradient in torch.autograd.grad(head.flame(*p).square().sum(), p):
        assert torch.isfinite(gradient).all() and gradient.any()
    zeros = [value.requires_grad_() for value in FlameParameters.zeros(1)]
    for gradient in torch.autograd.grad(head.flame(*zeros).square().sum(), zeros):
        assert torch.isfinite(gradient).all()  # the norm of no rotation has none


def test_the_gradient_of_the_expression_is_its_finite_difference(head: FlameHead) -> None:
    p = draw(3, 1)
    flame = FLAME.from_arrays(toy_arrays()).double()
    expression = p.expression.double().requires_grad_()

    def height(value: torch.Tensor) -> torch.Tensor:
        return flame(p.shape, value, p.pose, p.eye_pose)[..., 1].sum()

    (gradient,) = torch.autograd.grad(height(expression), expression)
    step = torch.zeros_like(expression)
    step[0, 7] = 1.0
    difference = (height(expression + step) - height(expression - step)) / 2
    assert float(difference) == pytest.approx(float(gradient[0, 7]), abs=1e-4, rel=1e-3)


@given(angles=ANGLES, seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_turning_the_neck_and_the_camera_with_it_shows_the_same(
    head: FlameHead, angles: tuple[float, ...], seed: int
) -> None:
    flame = FLAME.from_arrays(toy_arrays())
    flame.posedirs.zero_()
    flame.lbs_weights.zero_()
    flame.lbs_weights[:, NECK] = 1  # all of it turns with the neck
    p = draw(seed, 1)
    pose = torch.cat([torch.tensor([angles]), torch.zeros(1, 3)], dim=1)
    camera = Camera.look_at(torch.tensor([0.4]), 0.1)
    moved = camera_for_neck(flame, camera.cam2world, p.shape, p.expression, pose)
    straight, turned = flame(p.shape, p.expression, 0 * pose), flame(p.shape, p.expression, pose)
    before, after = project(straight, camera)[0], project(turned, Camera(moved, camera.intrinsics))[0]
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    same = camera_for_neck(flame, camera.cam2world, p.shape, p.expression, 0 * pose)
    torch.testing.assert_close(same, camera.cam2world, atol=1e-5, rtol=0)


@given(angles=ANGLES)
@settings(max_examples=30, deadline=None)
def test_rotations_are_rotations_and_limits_hold(angles: tuple[float, ...]) -> None:
    turn = rotation_matrix(torch.tensor(angles, dtype=torch.float64))
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(torch.linalg.det(turn)) == pytest.approx(1, abs=1e-6)
    bounded = bounded_rotation(torch.tensor(angles), "neck")
    limits = torch.tensor([90.0, 60.0, 80.0]) * math.pi / 180
    assert (bounded.abs() <= limits).all()
    torch.testing.assert_close(unbounded_rotation(bounded, "neck"), torch.tensor(angles), atol=1e-3, rtol=0)


def test_the_contour_follows_the_yaw(head: FlameHead) -> None:
    degrees = torch.tensor([0.0, 10, 39, 70, -1, -39, -70])
    neck = torch.zeros(7, 3)
    neck[:, 1] = degrees * math.pi / 180
    assert contour_row(neck).tolist() == [0, 10, 39, 39, 40, 78, 78]
    pose = torch.cat([neck, torch.zeros(7, 3)], dim=1)
    vertices = head.flame(*FlameParameters.zeros(7))
    points = head.flame.contour_landmarks(vertices, pose)
    assert points.shape == (7, 70, 3)
    assert points[:, 17:].equal(points[:1, 17:].expand(7, -1, -1)) and not points[0, :17].equal(points[1, :17])


def test_the_jaw_moves_the_jaw(head: FlameHead) -> None:
    zeros = FlameParameters.zeros(1)
    open_jaw = zeros.pose.clone()
    open_jaw[:, 3] = 0.3
    moved = (head.flame(zeros.shape, zeros.expression, open_jaw) - head.flame(*zeros))[0].norm(dim=-1)
    weights = head.flame.lbs_weights[:, JAW]
    assert moved[weights > 0.5].mean() > moved[weights < 0.1].mean()


def test_parts_and_maps(head: FlameHead) -> None:
    faces = head.part_faces("eyes")
    assert torch.isin(faces, head.eyes).all() and len(faces) == 2 * 48
    assert len(head.part_faces("face_and_eyes")) == len(head.part_faces("face")) + len(faces)
    zeros = FlameParameters.zeros(1)
    vertices = head.flame(*zeros)
    camera = Camera.stack([Camera.canonical(4.0)])
    mask = part_mask(head, vertices, camera, 64, "eyes")
    columns = mask[0].any(0).nonzero()[:, 0]
    assert mask.any() and columns.min() < 31 and columns.max() > 32  # one on each side
    place, fragments = correspondence_map(head, vertices, camera, 64)
    assert place.shape == (1, 3, 64, 64) and not place[:, :, ~fragments.covered[0]].any()
    blinking = with_eyelids(head, vertices, vertices + 1)
    assert (blinking != vertices).any(-1)[0].nonzero()[:, 0].tolist() == head.eyelids.tolist()


def test_it_is_a_parametric_head(head: FlameHead) -> None:
    flame = head.flame
    assert isinstance(flame, ParametricHead)
    assert flame.identity_basis.shape[-1] == 300 and flame.expression_basis.shape[-1] == 100
    assert flame.triangles.max() < len(flame.uv) and flame.uv.min() >= 0 and flame.uv.max() <= 1
    front = flame.v_template[:, 2].argmax()
    assert float(flame.uv[front, 0]) == pytest.approx(0.5, abs=0.2)
    assert flame.uv[flame.v_template[:, 1].argmax(), 1] == 1


def test_a_head_is_saved_and_loaded(head: FlameHead) -> None:
    state = head.state_dict()
    again = FlameHead(HeadSizes.of_tensors(state))
    again.load_state_dict(state)
    assert again.flame(*draw(4)).equal(head.flame(*draw(4)))


def test_labels_come_and_go() -> None:
    p = draw(5)
    again = FlameParameters.from_label(p.label())
    assert all(a.equal(b) for a, b in zip(p, again, strict=True))
    assert not p.without_neck().pose[:, :3].any() and p.without_neck().pose[:, 3:].equal(p.pose[:, 3:])
    assert p.motion().equal(torch.cat([p.label()[:, 300:400], p.label()[:, 403:]], dim=1))
    assert p.motion().shape == (len(p), HEAD_MOTION)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"shape": torch.zeros(1, 100)}, r"shape needs \[batch, 300\] numbers, not \[1, 100\]"),
        ({"expression": torch.zeros(100)}, "expression needs"),
        ({"pose": torch.zeros(2, 6)}, "pose is of 2 heads, its shape of 1"),
        ({"eye_pose": torch.full((1, 6), math.nan)}, "eye_pose holds NaN"),
        ({"expression": torch.full((1, 100), math.inf)}, "expression holds NaN or infinite"),
    ],
)
def test_parameters_that_are_refused(values: dict, complaint: str) -> None:
    sizes = {"shape": 300, "expression": 100, "pose": 6, "eye_pose": 6}
    with pytest.raises(ZooError, match=complaint) as caught:
        FlameParameters(**({name: torch.zeros(1, size) for name, size in sizes.items()} | values))
    assert "\n" not in str(caught.value)


def test_the_model_and_labels_refuse_wrong_lengths(head: FlameHead) -> None:
    with pytest.raises(ZooError, match=r"pose needs \[batch, 6\]"):
        head.flame(torch.zeros(1, 300), torch.zeros(1, 100), torch.zeros(1, 3))
    with pytest.raises(ZooError, match=r"\[batch, 412\] numbers"):
        FlameParameters.from_label(torch.zeros(1, 437))
    with pytest.raises(ZooError, match="unknown joint 'knee'"):
        bounded_rotation(torch.zeros(3), "knee")
