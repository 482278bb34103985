import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.normals import normals_from_density, normals_from_position

RADIUS = 0.4


def sphere_seen_by(camera, size=48, radius=RADIUS):
    """World position of a sphere around the origin in each pixel (NaN where a ray misses it), by intersection."""
    steps = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    focal = camera.intrinsics[0, 0]
    rays = torch.stack([(u - 0.5) / focal, (v - 0.5) / focal, torch.ones_like(u)], dim=-1)
    rays = torch.nn.functional.normalize(rays @ camera.cam2world[:3, :3].T, dim=-1)
    origin = camera.cam2world[:3, 3]
    along = rays @ origin
    distance = -along - (along**2 - origin @ origin + radius**2).sqrt()
    return origin + rays * distance[..., None]


@settings(max_examples=20, deadline=None)
@given(st.floats(-3, 3), st.floats(-0.8, 0.8))
def test_normals_of_a_sphere_point_away_from_its_centre(yaw, pitch):
    position = sphere_seen_by(Camera.look_at(yaw, pitch, target=(0.0, 0.0, 0.0), focal=8.0))[None]
    truth = position / RADIUS
    assert torch.isfinite(truth).all()
    assert (normals_from_position(position) * truth).sum(-1)[:, 1:-1, 1:-1].min() > 0.99
    inside = normals_from_density(lambda points: -(points**2).sum(-1, keepdim=True), position)
    assert (inside * truth).sum(-1).min() > 0.9999


def test_a_wall_facing_the_camera():
    y, x = torch.meshgrid(torch.linspace(0.5, -0.5, 6), torch.linspace(-0.5, 0.5, 8), indexing="ij")
    wall = torch.stack([x, y, torch.zeros_like(x)], dim=-1)[None]
    assert torch.allclose(normals_from_position(wall), torch.tensor([0.0, 0.0, 1.0]).expand_as(wall))


def test_where_nothing_changes_there_is_no_normal():
    still = torch.ones(1, 4, 4, 3)
    assert (normals_from_position(still) == 0).all()
    assert (normals_from_density(lambda points: points[..., :1] * 0, still) == 0).all()


@torch.inference_mode()
def test_density_normals_work_in_inference_mode():
    weight = torch.tensor([[0.0], [2.0], [0.0]])
    normals = normals_from_density(lambda points: points @ weight, torch.zeros(2, 3, 3, 3))
    assert normals.shape == (2, 3, 3, 3)
    assert normals[0, 0, 0].tolist() == pytest.approx([0, -1, 0])
