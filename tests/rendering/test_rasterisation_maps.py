"""Maps of planes, spheres and overlapping triangles whose depth, position and normal are known; backends compared."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portraitzoo.errors import ZooError
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rasterisation import (
    face_map,
    normal_map,
    position_map,
    rasterise,
    rasterise_orthographic,
)
from portraitzoo.rendering.rays import cast_rays

torch.set_num_threads(1)
RESOLUTION = 48
SQUARE = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])


def ball(radius: float, rows: int = 60, columns: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    """A finely cut sphere about the origin, counter-clockwise from outside."""
    down = torch.linspace(0, math.pi, rows + 1)[:, None].expand(-1, columns)
    around = (torch.arange(columns) * 2 * math.pi / columns).expand(rows + 1, -1)
    vertices = torch.stack([down.sin() * around.sin(), down.cos(), down.sin() * around.cos()], -1).reshape(-1, 3)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    a, d = row * columns + column, (row + 1) * columns + column
    b, c = row * columns + (column + 1) % columns, (row + 1) * columns + (column + 1) % columns
    quads = [torch.stack([a, d, c], -1).reshape(-1, 3), torch.stack([a, c, b], -1).reshape(-1, 3)]
    return radius * vertices, torch.cat(quads)


@given(yaw=st.floats(-0.7, 0.7), pitch=st.floats(-0.5, 0.5), tilt=st.floats(-0.4, 0.4))
@example(yaw=0.7, pitch=0.5, tilt=-0.4)
@example(yaw=-0.7, pitch=-0.5, tilt=0.4)
@settings(max_examples=15, deadline=None)
def test_a_tilted_plane(yaw: float, pitch: float, tilt: float) -> None:
    normal = torch.tensor([math.sin(tilt), 0.0, math.cos(tilt)])
    square = 2 * SQUARE  # seen at up to 1.1 radians from its normal, it must still fill the picture
    vertices = square.clone()
    vertices[:, 0], vertices[:, 2] = square[:, 0] * math.cos(tilt), -square[:, 0] * math.sin(tilt)
    camera = Camera.look_at(torch.tensor([yaw]), pitch)
    rays = cast_rays(camera, RESOLUTION)
    distance = -(rays.origins[0] @ normal) / (rays.directions[0] @ normal)
    expected = (rays.origins[0] + distance[:, None] * rays.directions[0]).view(RESOLUTION, RESOLUTION, 3)
    seen = rasterise(vertices[None], TWO, camera, RESOLUTION)
    assert seen.covered.all()
    torch.testing.assert_close(position_map(seen, TWO, vertices[None])[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normal_map(seen, TWO, vertices[None])[0], normal.expand_as(expected))
    axis = camera.cam2world[0, :3, 2]
    torch.testing.assert_close(seen.depth[0], (expected - camera.cam2world[0, :3, 3]) @ axis, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen.barycentric.sum(-1), torch.ones_like(seen.depth))


@given(yaw=st.floats(-3, 3), pitch=st.floats(-1, 1))
@settings(max_examples=8, deadline=None)
def test_positions_and_normals_of_a_sphere(yaw: float, pitch: float) -> None:
    vertices, faces = ball(0.3)
    camera = Camera.look_at(torch.tensor([yaw]), pitch, target=(0.0, 0.0, 0.0))
    seen = rasterise(vertices[None], faces, camera, RESOLUTION)
    position, normal = position_map(seen, faces, vertices[None])[seen.covered], normal_map(seen, faces, vertices[None])
    assert (position.norm(dim=-1) - 0.3).abs().max() < 1e-3
    assert ((normal[seen.covered] * position).sum(-1) / position.norm(dim=-1)).min() > 0.998
    assert not normal[~seen.covered].any()
    disc = math.pi * (4.2647 * math.tan(math.asin(0.3 / 2.7)) * RESOLUTION) ** 2
    assert float(seen.covered.sum()) == pytest.approx(disc, rel=0.03)


def test_the_nearest_of_overlapping_triangles_is_seen_and_its_part_told() -> None:
    layers = [SQUARE * scale + torch.tensor([0.0, 0.0, z]) for scale, z in ((1.0, -0.2), (0.2, 0.1), (0.1, 0.3))]
    vertices, faces = torch.cat(layers)[None], torch.cat([TWO + 4 * layer for layer in range(3)])
    part = torch.tensor([0, 0, 1, 1, 2, 2])
    camera = Camera.stack([Camera.canonical()])
    seen = rasterise(vertices, faces, camera, 64)
    layer = face_map(seen, part, nothing=-1)[0]
    rays = cast_rays(camera, 64)
    ahead = -rays.directions[0, :, 2]
    for index, (scale, z) in reversed(list(enumerate(((1.0, -0.2), (0.2, 0.1), (0.1, 0.3))))):
        at = rays.origins[0] + rays.directions[0] * ((2.7 - z) / ahead)[:, None]
        inside = (at[:, :2].abs().amax(-1) < scale).view(64, 64)
        free = inside & (layer != -2)
        assert (layer[free] == index).all()
        torch.testing.assert_close(seen.depth[0][free], torch.full_like(seen.depth[0][free], 2.7 - z))
        layer = torch.where(inside, -2, layer)
    assert (layer[layer != -2] == -1).all()


def test_a_map_of_the_plane_sees_the_lowest_face_above_it() -> None:
    low, high = (SQUARE * 0.5 + torch.tensor([0.25, 0.25, z]) for z in (0.2, 0.4))
    below = SQUARE + torch.tensor([0.0, 0.0, -0.1])
    vertices = torch.cat([high, low, below])[None]
    faces = torch.cat([TWO, TWO + 4, TWO + 8])
    seen = rasterise_orthographic(vertices, faces, 32, half_side=1.0)
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    x, y = (2 * column + 1) / 32 - 1, 1 - (2 * row + 1) / 32
    assert seen.covered[0].equal(((x - 0.25).abs() < 0.5) & ((y - 0.25).abs() < 0.5))
    assert ((seen.face == 2) | (seen.face == 3))[seen.covered].all()
    torch.testing.assert_close(seen.depth[seen.covered], torch.full_like(seen.depth[seen.covered], 0.2))
    place = position_map(seen, faces, vertices)[0][seen.covered[0]]
    torch.testing.assert_close(place[:, :2], torch.stack([x, y], -1)[seen.covered[0]], atol=1e-6, rtol=0)
    assert not rasterise_orthographic(vertices, faces.flip(1), 32, half_side=1.0).covered.any()


@pytest.mark.parametrize("orthographic", [False, True])
def test_torch_and_pytorch3d_see_the_same_faces(orthographic: bool) -> None:
    pytest.importorskip("pytorch3d")
    vertices, faces = ball(0.3, 14, 20)
    vertices = vertices + 0.01 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(1))
    camera = Camera.look_at(torch.tensor([0.3]), 0.2, target=(0.0, 0.0, 0.0))
    for cull in (False, True):
        if orthographic:
            ours, theirs = (
                rasterise_orthographic(vertices[None], faces, 96, half_side=0.5, cull_backfaces=cull, backend=backend)
                for backend in ("torch", "pytorch3d")
            )
        else:
            ours, theirs = (
                rasterise(vertices[None], faces, camera, 96, cull_backfaces=cull, backend=backend)
                for backend in ("torch", "pytorch3d")
            )
        assert ours.face.equal(theirs.face) and ours.covered.any()
        assert ours.depth.equal(theirs.depth)


def test_nothing_to_see() -> None:
    away = SQUARE[None] + torch.tensor([0.0, 0.0, 10.0])  # behind the camera
    assert not rasterise(away, TWO, Camera.stack([Camera.canonical()]), 16).covered.any()


def test_wrong_backends_are_named() -> None:
    camera = Camera.stack([Camera.canonical()])
    with pytest.raises(ZooError, match="choose torch, pytorch3d or nvdiffrast"):
        rasterise(SQUARE[None], TWO, camera, 16, backend="opengl")  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="CUDA devices only"):
        rasterise(SQUARE[None], TWO, camera, 16, backend="nvdiffrast")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["torch", "pytorch3d", "nvdiffrast"])
def test_every_backend_on_the_gpu_sees_what_the_cpu_sees(backend: str) -> None:
    pytest.importorskip({"nvdiffrast": "nvdiffrast.torch"}.get(backend, backend))
    vertices, faces = ball(0.3)
    camera = Camera.look_at(torch.tensor([0.3, -0.5]), 0.2, target=(0.0, 0.0, 0.0))
    both = torch.stack([vertices, vertices * 0.8])
    here = rasterise(both, faces, camera, 256)
    there = rasterise(both.cuda(), faces.cuda(), camera.to("cuda"), 256, backend=backend)  # type: ignore[arg-type]
    same = there.face.cpu() == here.face
    assert same.float().mean() > 0.99  # sixteenths of a pixel, and rounding, at the edges of faces
    torch.testing.assert_close(there.depth.cpu()[same], here.depth[same], atol=1e-5, rtol=0)
    rim = there.covered.cpu() != here.covered
    assert rim.float().mean() < 2e-3
