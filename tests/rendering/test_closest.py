"""Closest faces and vertices against closed forms, against comparing everything with everything, and PyTorch3D."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.closest import closest_faces, face_normals, nearest_vertices, plane_coordinates

torch.set_num_threads(1)
SEEDS = st.integers(0, 2**31)
TRIANGLE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
ONE = torch.tensor([[0, 1, 2]])


def soup(seed: int, size: float, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles of about ``size``, anywhere in a box of side 1, that share no vertex."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 1, 3, generator=generator) + size * torch.rand(count, 3, 3, generator=generator)
    return corners.flatten(0, 1), torch.arange(3 * count).view(-1, 3)


@pytest.mark.parametrize(
    ("point", "squared"),
    [
        ((0.25, 0.25, 0.5), 0.25),  # above the middle
        ((0.25, 0.25, -0.5), 0.25),  # below it
        ((-1.0, 0.5, 0.0), 1.0),  # beside an edge
        ((2.0, 0.0, 0.0), 1.0),  # beyond a vertex
        ((1.0, 1.0, 0.0), 0.5),  # beyond the hypotenuse
        ((0.2, 0.2, 0.0), 0.0),  # on it
    ],
)
def test_squared_distance_to_one_triangle(point: tuple[float, ...], squared: float) -> None:
    distance, face = closest_faces(torch.tensor([[point]]), TRIANGLE[None], ONE)
    assert float(distance) == pytest.approx(squared, abs=1e-6) and int(face) == 0


def test_a_triangle_under_the_least_area_is_its_edges() -> None:
    point = torch.tensor([[[0.2, 0.3, 0.5]]])
    assert float(closest_faces(point, TRIANGLE[None], ONE, min_area=0.4)[0]) == pytest.approx(0.25)
    assert float(closest_faces(point, TRIANGLE[None], ONE, min_area=0.6)[0]) == pytest.approx(0.25 + 0.2**2)


def test_of_equally_close_faces_the_last_wins() -> None:
    vertices = torch.cat([TRIANGLE, TRIANGLE])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 1, 2]])
    assert int(closest_faces(torch.tensor([[[0.1, 0.1, 1.0]]]), vertices[None], faces)[1]) == 2


@given(seed=SEEDS, size=st.floats(0.01, 1.0), shift=st.floats(-3, 3))
@settings(max_examples=12, deadline=None)
def test_no_face_is_closer_than_the_one_found(seed: int, size: float, shift: float) -> None:
    vertices, faces = soup(seed, size, 20)
    points = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 0.5 + shift
    for min_area in (0.0, 0.02):
        distance, face = closest_faces(points, vertices.expand(2, -1, -1), faces, min_area=min_area)
        alone = [closest_faces(points, vertices.expand(2, -1, -1), one[None], min_area=min_area)[0] for one in faces]
        every = torch.stack(alone, dim=-1)
        assert distance.equal(every.amin(-1))
        assert every.gather(-1, face[..., None])[..., 0].equal(distance)


@pytest.mark.skipif(importlib.util.find_spec("pytorch3d") is None, reason="pytorch3d is not installed")
@pytest.mark.parametrize("min_area", [5e-3, 0.05])
def test_the_numbers_are_those_of_pytorch3d(min_area: float) -> None:
    from pytorch3d import _C

    vertices, faces = soup(3, 0.2, 300)
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(4)) * 1.5
    first = torch.zeros(1, dtype=torch.int64)
    expected = _C.point_face_dist_forward(points, first, vertices[faces], first, len(points), min_area)
    distance, face = closest_faces(points[None], vertices[None], faces, min_area=min_area)
    torch.testing.assert_close(distance[0], expected[0], rtol=1e-5, atol=1e-7)
    assert (face[0] == expected[1]).float().mean() > 0.999  # where two are equally far, rounding may differ


@given(seed=SEEDS, count=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_no_vertex_is_nearer_than_those_found(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points, vertices = torch.rand(70, 3, generator=generator) * 2, torch.rand(50, 3, generator=generator)
    squared, index = nearest_vertices(points, vertices, count)
    every = (points[:, None] - vertices).square().sum(-1)
    torch.testing.assert_close(squared, every.topk(count, largest=False).values)
    torch.testing.assert_close(every.gather(1, index), squared)


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_plane_coordinates_lead_back_to_the_point(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners, points = torch.rand(20, 3, 3, generator=generator), torch.rand(20, 3, generator=generator) * 2
    corners = corners + torch.eye(3)  # far from degenerate
    weights, height = plane_coordinates(points, corners)
    torch.testing.assert_close(weights.sum(-1), torch.ones(20), atol=1e-4, rtol=0)
    back = (weights[..., None] * corners).sum(-2) + height[:, None] * face_normals(corners)
    torch.testing.assert_close(back, points, atol=1e-4, rtol=0)


def test_nothing_asked_nothing_found() -> None:
    distance, face = closest_faces(torch.zeros(1, 0, 3), TRIANGLE[None], ONE)
    assert distance.shape == face.shape == (1, 0)
    assert nearest_vertices(torch.zeros(0, 3), TRIANGLE)[0].shape == (0, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same() -> None:
    vertices, faces = soup(5, 0.1, 500)
    points = torch.rand(1, 3000, 3, generator=torch.Generator().manual_seed(6)) * 1.5
    here = closest_faces(points, vertices[None], faces, min_area=5e-3)[0]
    there = closest_faces(points.cuda(), vertices[None].cuda(), faces.cuda(), min_area=5e-3)[0]
    torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-7)
    near = nearest_vertices(points[0].cuda(), vertices.cuda(), 3)[0]
    torch.testing.assert_close(near.cpu(), nearest_vertices(points[0], vertices, 3)[0], rtol=1e-5, atol=1e-7)
