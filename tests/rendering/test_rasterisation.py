"""The rasteriser against geometry that is known in closed form, against the rays of the volume renderer, and against
PyTorch3D."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rasterisation import interpolate, project, rasterise, vertex_normals
from portraitzoo.rendering.rays import cast_rays

torch.set_num_threads(1)
ANGLES = st.floats(-0.8, 0.8)


def sphere(radius: float = 0.25, rows: int = 48, columns: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """A finely cut sphere, counter-clockwise from outside."""
    down, around = torch.meshgrid(
        torch.linspace(0, math.pi, rows + 1), torch.linspace(0, 2 * math.pi, columns + 1), indexing="ij"
    )
    vertices = torch.stack([down.sin() * around.sin(), down.cos(), down.sin() * around.cos()], -1).reshape(-1, 3)
    index = torch.arange((rows + 1) * (columns + 1)).view(rows + 1, columns + 1)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    return radius * vertices, torch.cat([torch.stack([a, d, c], -1), torch.stack([a, c, b], -1)])


@given(yaw=ANGLES, pitch=st.floats(-0.5, 0.5))
@settings(max_examples=15, deadline=None)
def test_a_vertex_falls_on_the_pixel_whose_ray_passes_through_it(yaw: float, pitch: float) -> None:
    camera = Camera.look_at(torch.tensor([yaw]), pitch)
    resolution = 8
    rays = cast_rays(camera, resolution)
    points = rays.at(torch.full((1, resolution**2, 1), 2.6))[:, :, 0]
    image, depth = project(points, camera)
    column, row = (image[0] * resolution - 0.5).unbind(-1)
    expected = torch.arange(resolution**2)
    torch.testing.assert_close(row, (expected // resolution).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(column, (expected % resolution).float(), atol=1e-3, rtol=0)
    along_axis = (rays.directions[0] @ camera.cam2world[0, :3, 2]) * 2.6
    torch.testing.assert_close(depth[0], along_axis, atol=1e-4, rtol=0)


@given(yaw=ANGLES, pitch=st.floats(-0.5, 0.5))
@settings(max_examples=8, deadline=None)
def test_depth_of_a_sphere(yaw: float, pitch: float) -> None:
    vertices, faces = sphere()
    camera = Camera.look_at(torch.tensor([yaw]), pitch)
    resolution = 64
    fragments = rasterise(vertices[None], faces, camera, resolution)
    rays = cast_rays(camera, resolution)
    origin, direction = rays.origins[0], rays.directions[0]
    along = -(origin * direction).sum(-1)
    miss = (origin.square().sum(-1) - along.square()).clamp(min=0).sqrt()
    hit = miss < 0.25
    depth = (along - (0.25**2 - miss**2).clamp(min=0).sqrt()) * (direction @ camera.cam2world[0, :3, 2])
    found = fragments.depth[0].flatten()
    inside = miss < 0.24  # at the rim the cut sphere and the round one differ
    torch.testing.assert_close(found[inside], depth[inside], atol=1.5e-3, rtol=0)
    assert not fragments.covered[0].flatten()[~hit].any()


def test_attributes_are_perspective_correct() -> None:
    vertices, faces = sphere()
    camera = Camera.look_at(torch.tensor([0.3]), 0.1)
    fragments = rasterise(vertices[None], faces, camera, 64)
    covered = fragments.covered[0]
    weights = fragments.barycentric[0]
    torch.testing.assert_close(weights[covered].sum(-1), torch.ones(int(covered.sum())), atol=1e-5, rtol=0)
    assert (weights[covered] > -1e-4).all()
    assert (weights[~covered] == 0).all()
    # Interpolated positions must lie on the pixels' own rays.
    positions = interpolate(fragments, faces, vertices[None])[0][covered]
    image, _ = project(positions[None], camera)
    row, column = covered.nonzero(as_tuple=True)
    expected = (torch.stack([column, row], -1) + 0.5) / 64
    torch.testing.assert_close(image[0], expected, atol=1e-4, rtol=0)
    normals = interpolate(fragments, faces, vertex_normals(vertices[None], faces))[0][covered]
    cosine = torch.nn.functional.cosine_similarity(normals, positions, dim=-1)
    assert cosine.min() > 0.999


def test_the_nearer_face_wins_whatever_the_order() -> None:
    square = torch.tensor([[-0.2, -0.2, 0.0], [0.2, -0.2, 0.0], [0.2, 0.2, 0.0], [-0.2, 0.2, 0.0]])
    vertices = torch.cat([square, square + torch.tensor([0.0, 0.0, 0.1])])
    quad = torch.tensor([[0, 1, 2], [0, 2, 3]])
    faces = torch.cat([quad, quad + 4])
    camera = Camera.canonical()
    near = rasterise(vertices[None], faces, Camera(camera.cam2world[None], camera.intrinsics[None]), 16)
    assert (near.face[near.covered] >= 2).all()
    behind = rasterise(vertices[None], faces.flip(0), Camera(camera.cam2world[None], camera.intrinsics[None]), 16)
    assert (behind.face[behind.covered] < 2).all()
    torch.testing.assert_close(near.depth, behind.depth)


def test_backfaces() -> None:
    vertices, faces = sphere(rows=8, columns=16)
    camera = Camera.look_at(torch.zeros(1), 0.0)
    inside_out = faces[:, [0, 2, 1]]
    assert rasterise(vertices[None], faces, camera, 32).covered.any()
    # Turned inside out, only the far half is drawn; without culling both cover the same pixels.
    far = rasterise(vertices[None], inside_out, camera, 32)
    both = rasterise(vertices[None], inside_out, camera, 32, cull_backfaces=False)
    assert (far.depth[0, 16, 16] - both.depth[0, 16, 16]) == pytest.approx(0.5, abs=0.02)


def test_parts_outside_the_picture_do_no_harm() -> None:
    vertices, faces = sphere(radius=0.9)
    camera = Camera.look_at(torch.tensor([0.4]), 0.0)
    fragments = rasterise(vertices[None], faces, camera, 24)
    assert fragments.covered.all()
    behind = rasterise(vertices[None] + 20 * camera.cam2world[0, :3, 3], faces, camera, 24)
    assert not behind.covered.any()


def test_gradients_reach_the_vertices() -> None:
    vertices, faces = sphere(rows=8, columns=16)
    camera = Camera.look_at(torch.zeros(1), 0.0)
    vertices.requires_grad_(True)
    fragments = rasterise(vertices[None], faces, camera, 16)
    fragments.depth.sum().backward()
    assert vertices.grad is not None
    # Toward the camera (+z) everything gets nearer.
    assert vertices.grad[:, 2].sum() < 0


def test_agrees_with_pytorch3d() -> None:
    pytest.importorskip("pytorch3d")
    vertices, faces = sphere(rows=12, columns=20)
    both = torch.stack([vertices, 0.8 * vertices + torch.tensor([0.05, -0.02, 0.1])])
    camera = Camera.look_at(torch.tensor([0.3, -0.5]), 0.1)
    ours = rasterise(both, faces, camera, 48)
    theirs = rasterise(both, faces, camera, 48, backend="pytorch3d")
    # A pixel whose centre lies on an edge may go to either face.
    assert (ours.face != theirs.face).float().mean() < 0.002
    assert (ours.depth - theirs.depth).abs()[ours.covered == theirs.covered].max() < 1e-4
