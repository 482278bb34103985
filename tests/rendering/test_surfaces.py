import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import ZooError
from portraitzoo.rendering.surfaces import Mesh, extract_mesh, sample_grid

CENTER = torch.tensor([0.05, -0.03, 0.08])


def ball(radius=0.25, center=CENTER):
    """A density that passes 10 at ``radius``, denser inside."""
    return lambda points: 10 + 40 * (radius - (points - center).norm(dim=-1))


def paint(points):
    return points + 0.5


@pytest.fixture(scope="module")
def mesh():
    return extract_mesh(ball(), resolution=48, color=paint)


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def test_a_ball_is_a_sphere(mesh):
    outward = mesh.vertices - CENTER
    assert (outward.norm(dim=-1) - 0.25).abs().max() < 2e-3
    solid = as_trimesh(mesh)
    assert solid.is_watertight and solid.is_winding_consistent
    assert solid.volume == pytest.approx(4 / 3 * math.pi * 0.25**3, rel=0.02)  # a positive volume: wound outward
    assert ((mesh.normals * outward).sum(-1) / outward.norm(dim=-1)).min() > 0.98
    assert torch.allclose(mesh.normals.norm(dim=-1), torch.ones(()))


def test_colors_are_those_of_the_vertices(mesh):
    assert torch.equal(mesh.colors, mesh.vertices + 0.5)


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 40), st.integers(1, 2000), st.sampled_from([0.5, 1.0, 2.0]))
def test_batches_and_axes_of_the_grid(resolution, points_per_batch, side):
    calls = []

    def field(points):
        calls.append(len(points))
        return points @ torch.tensor([1.0, 10.0, 100.0])

    if resolution**3 > 20 * points_per_batch:
        points_per_batch = resolution**3 // 20 + 1
    grid = sample_grid(field, side, resolution, points_per_batch)
    assert max(calls) <= points_per_batch and sum(calls) == resolution**3
    axis = torch.linspace(-side / 2, side / 2, resolution)
    expected = axis[:, None, None] + 10 * axis[:, None] + 100 * axis
    assert torch.allclose(grid, expected, atol=1e-4)


def test_the_mesh_does_not_depend_on_the_batches(mesh):
    other = extract_mesh(ball(), resolution=48, color=paint, points_per_batch=999)
    assert torch.equal(other.vertices, mesh.vertices) and torch.equal(other.faces, mesh.faces)
    assert torch.equal(other.colors, mesh.colors)


def test_what_leaves_the_cube_is_capped_or_open():
    def neck(points):
        return 10 + 40 * (0.2 - points[:, [0, 2]].norm(dim=-1))

    capped, opened = (extract_mesh(neck, resolution=32, closed=closed) for closed in (True, False))
    assert as_trimesh(capped).is_watertight and not as_trimesh(opened).is_watertight
    for mesh in (capped, opened):
        assert mesh.vertices.abs().max() == pytest.approx(0.5)
    assert as_trimesh(capped).volume == pytest.approx(math.pi * 0.04, rel=0.05)


def test_largest_component():
    near, far = ball(0.2, torch.tensor([0.2, 0.0, 0.0])), ball(0.1, torch.tensor([-0.3, 0.0, 0.0]))
    both = extract_mesh(lambda points: torch.maximum(near(points), far(points)), resolution=40, color=paint)
    head = both.largest_component()
    assert as_trimesh(both).body_count == 2 and as_trimesh(head).body_count == 1
    assert as_trimesh(head).is_watertight and head.vertices[:, 0].min() > -0.05
    assert torch.equal(head.colors, head.vertices + 0.5)
    assert torch.equal(head.largest_component().vertices, head.vertices)


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_files_read_back(tmp_path, mesh, suffix):
    path = mesh.save(tmp_path / f"head{suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    read = trimesh.load(path, force="mesh", process=False)
    assert len(read.vertices) == len(mesh.vertices) and len(read.faces) == len(mesh.faces)
    assert np.abs(np.asarray(read.vertices) - mesh.vertices.numpy()).max() < 1e-5
    assert np.array_equal(read.faces, mesh.faces.numpy())
    assert np.abs(read.visual.vertex_colors[:, :3] / 255 - mesh.colors.numpy()).max() <= 1 / 255
    assert (np.asarray(read.vertex_normals) * mesh.normals.numpy()).sum(-1).min() > 0.98
    assert path.read_bytes() == mesh.save(tmp_path / f"again{suffix}").read_bytes()


def test_a_bare_mesh_saves(tmp_path):
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    assert len(trimesh.load(triangle.save(tmp_path / "triangle.ply"), force="mesh").faces) == 1


def test_no_surface_names_level_and_range():
    with pytest.raises(ZooError, match=r"no surface of density 99: .* between -[0-9.]+ and 1[0-9.]+;"):
        extract_mesh(ball(), resolution=16, level=99)
    with pytest.raises(ZooError, match="not finite"):
        extract_mesh(lambda points: points[:, 0] * float("nan"), resolution=4)
    with pytest.raises(ZooError, match="at least 2 points"):
        extract_mesh(ball(), resolution=1)


def test_unknown_format(tmp_path, mesh):
    with pytest.raises(ZooError, match=r"saved as \.glb"):
        mesh.save(tmp_path / "head.stl")
    assert list(tmp_path.iterdir()) == []
