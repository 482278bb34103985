"""Neighbours and decimation of meshes."""

import numpy as np
import pytest
from toy_head import ball

from portraitzoo.faces.mesh_tables import decimate, neighbour_rings, vertices_around


def area_vector(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Sum of the faces' areas times normals: zero where a mesh is closed."""
    corners = vertices[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).sum(0) / 2


def test_rings_are_the_vertex_and_who_shares_an_edge_with_it() -> None:
    vertices, faces = ball((0, 0, 0), 1.0, 8, 6)
    rings = neighbour_rings(vertices, faces, 10)
    for vertex, ring in enumerate(rings):
        among = set(faces[(faces == vertex).any(1)].ravel().tolist()) - {vertex}
        found = [other for other in ring[1:].tolist() if other < len(vertices)]
        assert ring[0] == vertex and set(found) == among and len(found) == len(among)
        assert (ring[1 + len(found) :] == len(vertices)).all()
        lengths = np.linalg.norm(vertices[found] - vertices[vertex], axis=1)
        assert (np.diff(lengths) >= -1e-12).all()


def test_a_ring_that_is_too_long_keeps_the_nearest() -> None:
    vertices, faces = ball((0, 0, 0), 1.0, 8, 30)
    assert (neighbour_rings(vertices, faces, 4)[0] < len(vertices)).all()


@pytest.mark.parametrize("count", [20, 60])
def test_a_decimated_ball_is_a_closed_ball_of_nearly_its_volume(count: int) -> None:
    vertices, faces = ball((0, 0, 0), 1.0, 24, 36)
    kept, coarse, owner = decimate(vertices, faces, count)
    assert len(np.unique(kept)) == count and set(np.unique(coarse)) <= set(range(count))
    small = vertices[kept]
    np.testing.assert_allclose(area_vector(small, coarse), 0, atol=1e-9)
    corners = small[coarse]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 0.6 * 4.19 < volume < 4.19  # positive: still turned outside
    assert (owner >= 0).all() and (owner[kept] == np.arange(count)).all()
    regions = vertices_around(vertices, corners.mean(1), owner, coarse, 12)
    for row, face in zip(regions, coarse, strict=True):
        inside = row[row < len(vertices)]
        assert np.isin(owner[inside], face).all() and (np.diff(inside) > 0).all() and len(inside) > 3
