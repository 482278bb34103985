"""Identity, Chamfer distance and warping error: their laws, and comparison with independent computations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.metrics.chamfer import ChamferDistance, chamfer_distance, nearest_squared
from portraitzoo.metrics.identity import IdentityConsistency, identity_consistency
from portraitzoo.metrics.multiview import PAIRS, side_camera
from portraitzoo.metrics.warping import MultiViewWarpingError, backward_warp, forward_warp, projected
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- identity -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 100), st.floats(0.1, 10))
def test_identity_ignores_length_and_order(views, seed, factor) -> None:
    embeddings = normal(3, views, 16, seed=seed)
    value = identity_consistency(embeddings)
    torch.testing.assert_close(identity_consistency(embeddings.flip(1) * factor), value, rtol=1e-5, atol=1e-6)
    assert (value.abs() <= 1 + 1e-9).all()


def test_identity_is_the_mean_over_heads_and_six_pairs() -> None:
    embeddings = normal(5, 4, 8)
    unit = embeddings / embeddings.norm(dim=-1, keepdim=True)
    cosines = [unit[n, i] @ unit[n, j] for n in range(5) for i in range(4) for j in range(i + 1, 4)]
    metric = IdentityConsistency()
    metric.update_features(embeddings[:2])
    metric.update_features(embeddings[2:])
    assert float(metric.compute()) == pytest.approx(float(torch.stack(cosines).mean()), rel=1e-5)


def test_equal_views_are_wholly_consistent() -> None:
    metric = IdentityConsistency()
    metric.update_features(normal(3, 1, 8).expand(3, 4, 8))
    assert float(metric.compute()) == pytest.approx(1)


def test_identity_needs_heads_with_views() -> None:
    with pytest.raises(ZooError, match="at least one head"), pytest.warns(UserWarning, match="before the"):
        IdentityConsistency().compute()
    with pytest.raises(ZooError, match="2 or more views"):
        IdentityConsistency().update_features(normal(3, 1, 8))


# ---- Chamfer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_nearest_points_are_those_of_a_search_tree(chunk) -> None:
    first, second = normal(50, 3) + 3, normal(80, 3, seed=1) + 3
    forward, backward = nearest_squared(first, second, chunk)
    np.testing.assert_allclose(forward, cKDTree(second).query(first)[0] ** 2, rtol=1e-4)
    np.testing.assert_allclose(backward, cKDTree(first).query(second)[0] ** 2, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
def test_chamfer_is_symmetric_zero_on_itself_and_rigid(n, m, seed) -> None:
    first, second = normal(n, 3, seed=seed), normal(m, 3, seed=seed + 1)
    value = chamfer_distance(first, second)
    torch.testing.assert_close(chamfer_distance(second, first), value)
    assert chamfer_distance(first, first) == 0
    rotation = Camera.look_at(0.4, 0.2).cam2world[:3, :3]
    moved = chamfer_distance(first @ rotation.T + 1, second @ rotation.T + 1)
    torch.testing.assert_close(moved, value, rtol=1e-3, atol=1e-5)


def heads(count: int, size: int = 6) -> tuple[Tensor, Tensor]:
    opacity = torch.rand(count, 4, size, size, generator=torch.Generator().manual_seed(3))
    return normal(count, 4, size, size, 3), opacity


def test_chamfer_takes_the_median_of_masked_points_to_all() -> None:
    position, opacity = heads(2)
    expected = []
    for points, masks in zip(position.flatten(2, 3).numpy(), opacity.flatten(2).numpy() > 0.5, strict=True):
        for i, j in PAIRS:
            ways = [np.sort(cKDTree(points[b]).query(points[a])[0][masks[a]] ** 2) for a, b in ((i, j), (j, i))]
            expected.append(sum(way[(len(way) - 1) // 2] for way in ways))  # the lower of two middle values
    metric = ChamferDistance()
    metric.update(position, opacity)
    assert float(metric.compute()) == pytest.approx(np.mean(expected), rel=1e-4)
    total = ChamferDistance(reduction="sum")
    total.update(position[:1], opacity[:1])
    total.update(position[1:], opacity[1:])
    assert float(total.compute()) == pytest.approx(np.sum(expected), rel=1e-4)


def test_frames_without_a_surface_are_skipped_and_counted() -> None:
    position, opacity = heads(2)
    opacity[0, 0] = 0  # front(t0): two of the first head's pairs show nothing
    metric = ChamferDistance()
    metric.update(position, opacity)
    assert (int(metric.pairs), int(metric.skipped)) == (6, 2)
    empty = ChamferDistance()
    empty.update(position, torch.zeros_like(opacity))
    with pytest.raises(ZooError, match="no pair"):
        empty.compute()


def test_ready_values_are_the_same_as_pictures() -> None:
    position, opacity = heads(3)
    whole, ready = ChamferDistance(), ChamferDistance()
    whole.update(position, opacity)
    ready.update_features(ChamferDistance.pair_values(position, opacity))
    assert whole.compute() == ready.compute()


def test_other_shapes_are_refused() -> None:
    position, opacity = heads(1)
    with pytest.raises(ZooError, match=r"front\(t0\)"):
        ChamferDistance().update(position[:, :3], opacity[:, :3])
    with pytest.raises(ZooError, match="opacity"):
        ChamferDistance().update(position, opacity[..., :3])
    with pytest.raises(ZooError, match="images"):
        MultiViewWarpingError().update(torch.zeros(1, 3, 8, 8, 3, dtype=torch.uint8), torch.ones(1, 3, 4, 4))


# ---- warping --------------------------------------------------------------------------------------------------------


def sphere_views(size: int, yaw: float, radius: float = 0.28) -> tuple[list[Tensor], list[Tensor], list[Camera]]:
    """A sphere coloured by world position before a far wall: images 0..255, depths along the rays, cameras."""
    cameras = [Camera.canonical(), side_camera(yaw)]
    images, depths = [], []
    for camera in cameras:
        rays = cast_rays(Camera(camera.cam2world[None], camera.intrinsics[None]), size)
        origin, direction = rays.origins[0], rays.directions[0]
        b, c = (origin * direction).sum(-1), origin.square().sum(-1) - radius**2
        discriminant = b**2 - c
        hit = discriminant > 0
        distance = torch.where(hit, -b - discriminant.clamp(min=0).sqrt(), 3.2)
        point = origin + distance[:, None] * direction
        colour = torch.where(hit[:, None], point / radius * 100 + 128, 0)
        images.append(colour.view(size, size, 3))
        depths.append(distance.view(size, size))
    return images, depths, cameras


def test_projection_undoes_the_rays() -> None:
    camera = side_camera(20, 10)
    rays = cast_rays(Camera(camera.cam2world[None], camera.intrinsics[None]), 8)
    position, z = projected(camera, rays.origins[0] + rays.directions[0] * 2.5)
    centres = (torch.arange(8) + 0.5) / 4 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    torch.testing.assert_close(position, torch.stack([x, y], -1).view(-1, 2), rtol=1e-4, atol=1e-4)
    assert (z > 2).all() and (z <= 2.5).all()


@pytest.mark.parametrize("method", ["z-buffer", "backward"])
def test_true_depth_carries_one_view_into_the_other(method) -> None:
    images, depths, cameras = sphere_views(96, yaw=15)
    wrong = [depth + 0.15 for depth in depths]
    errors = []
    for front_depth, side_depth in (depths, wrong):
        if method == "backward":
            warped, valid = backward_warp(images[1], front_depth, side_depth, *cameras, threshold=0.1, coarse=48)
        else:
            warped, valid = forward_warp(images[0], images[1], side_depth, *cameras, z_buffer=True)
        seen = valid & (depths[0] < 3)
        assert seen.float().mean() > 0.1
        errors.append(float((warped - images[0]).abs()[seen].mean()))
    assert errors[0] < 4 and errors[1] > 2 * errors[0]


def test_without_z_buffer_the_later_pixel_wins_and_with_it_the_nearer() -> None:
    # From the side, two pixels of the lower rows are moved so that they fall where upper ones fell.
    images, depths, cameras = sphere_views(64, yaw=30)
    plain, valid = forward_warp(images[0], images[1], depths[1], *cameras)
    nearest, valid_nearest = forward_warp(images[0], images[1], depths[1], *cameras, z_buffer=True)
    wall, wall_nearest = plain[valid & valid_nearest].sum(-1) == 0, nearest[valid & valid_nearest].sum(-1) == 0
    assert (plain[valid & valid_nearest] != nearest[valid & valid_nearest]).any()
    assert (wall & ~wall_nearest).sum() > (wall_nearest & ~wall).sum(), "the far wall hides less with a z-buffer"


def test_colliding_pixels_are_settled_as_a_loop_would() -> None:
    images, depths, cameras = sphere_views(24, yaw=30)
    warped, valid = forward_warp(images[0], images[1], depths[1], *cameras)
    rays = cast_rays(Camera(cameras[1].cam2world[None], cameras[1].intrinsics[None]), 24)
    position, _ = projected(cameras[0], rays.origins[0] + rays.directions[0] * depths[1].view(-1, 1))
    canvas, hit = torch.zeros(24, 24, 3), torch.zeros(24, 24, dtype=torch.bool)
    for index, (x, y) in enumerate(position):
        column, row = (min(max(math.trunc((float(v) + 1) / 2 * 24), 0), 23) for v in (x, y))
        canvas[row, column], hit[row, column] = images[1].view(-1, 3)[index], True
    hit &= (position.abs().amax(-1) <= 1).view(24, 24)
    assert torch.equal(valid, hit)
    assert torch.equal(warped, torch.where(hit[..., None], canvas, 0))


def test_warping_error_knows_no_unit_of_length() -> None:
    images = (torch.rand(1, 4, 24, 24, 3, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    depth = 2.7 + 0.05 * normal(1, 4, 12, 12, seed=2)
    small = Camera.stack([Camera.canonical(), side_camera(), side_camera(), Camera.canonical()])
    pose = small.cam2world.clone()
    pose[:, :3, 3] *= 4
    metric = MultiViewWarpingError(size=24)
    expected = metric.pair_values(images, depth)
    assert torch.equal(metric.pair_values(images, depth, [small]), expected)
    grown = Camera(pose, small.intrinsics)
    torch.testing.assert_close(metric.pair_values(images, 4 * depth, [grown]), expected, rtol=0.02, atol=0)
    assert not torch.allclose(metric.pair_values(images, depth, [grown]), expected, rtol=0.02)


def test_warping_error_of_one_grey_is_zero_and_grows_with_contrast() -> None:
    _, depths, _ = sphere_views(32, yaw=30)
    depth = torch.stack([depths[0], depths[1], depths[1], depths[0]])[None]
    values = []
    for difference in (0, 10, 40):
        images = torch.full((1, 4, 32, 32, 3), 100, dtype=torch.uint8)
        images[:, 1:3] += difference
        metric = MultiViewWarpingError(size=32)
        metric.update(images, depth)
        values.append(float(metric.compute()))
    assert values == pytest.approx([0, 10, 40])


def test_nothing_to_see_is_skipped() -> None:
    metric = MultiViewWarpingError(size=16)
    behind = torch.full((1, 4, 8, 8), 1e4)  # projects far outside of the front view
    metric.update(torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8), behind)
    assert int(metric.pairs + metric.skipped) == 4
