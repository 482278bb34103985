"""Tables about a mesh that deformation fields look up: neighbours, a decimated mesh, what is around its faces."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra


def neighbour_rings(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], size: int
) -> Int[np.ndarray, "vertices size"]:
    """Each vertex, then those that share an edge with it, the nearest first; padded with the number of vertices."""
    count = len(vertices)
    start, end = _edges(faces)
    length = np.linalg.norm(vertices[start] - vertices[end], axis=1)
    order = np.lexsort([length, start])
    start, end = start[order], end[order]
    rank = np.arange(len(start)) - np.searchsorted(start, start)
    table = np.full((count, size), count, dtype=np.int64)
    table[:, 0] = np.arange(count)
    table[start[rank < size - 1], rank[rank < size - 1] + 1] = end[rank < size - 1]
    return table


def decimate(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    count: int,
    density: Float[np.ndarray, " vertices"] | None = None,
) -> tuple[Int[np.ndarray, " count"], Int[np.ndarray, "coarse_faces 3"], Int[np.ndarray, " vertices"]]:
    """A mesh of ``count`` of the vertices.

    Each vertex belongs to the kept one that is closest along the edges; a face whose corners belong to three kept
    vertices becomes a face between these. What is connected stays so, and nothing is torn.

    Args:
        vertices: positions; only those on faces are kept.
        faces: triangles.
        count: how many vertices to keep.
        density: how many times closer together they are to lie about each vertex; evenly if None.

    Returns:
        The kept vertices, faces between them (indices into the kept ones), and to which kept one each vertex belongs.
    """
    start, end = _edges(faces)
    length = np.linalg.norm(vertices[start] - vertices[end], axis=1)
    graph = coo_matrix((length, (start, end)), shape=(len(vertices), len(vertices))).tocsr()
    kept = _spread(vertices, np.unique(faces), count, np.ones(len(vertices)) if density is None else density)
    _, _, source = dijkstra(graph, indices=kept, min_only=True, return_predecessors=True)
    place = np.full(len(vertices), -1)
    place[kept] = np.arange(count)
    owner = np.where(source < 0, -1, place[np.maximum(source, 0)])
    corners = owner[faces]
    whole = (corners >= 0).all(1) & (np.diff(np.sort(corners, axis=1), axis=1) > 0).all(1)
    _, first = np.unique(np.sort(corners[whole], axis=1), axis=0, return_index=True)
    return kept, corners[whole][np.sort(first)], owner


def vertices_around(
    vertices: Float[np.ndarray, "vertices 3"],
    centers: Float[np.ndarray, "coarse_faces 3"],
    belongs: Int[np.ndarray, " vertices"],
    coarse_faces: Int[np.ndarray, "coarse_faces 3"],
    size: int,
) -> Int[np.ndarray, "coarse_faces size"]:
    """The vertices nearest to each face of a decimated mesh among those that belong to its corners, ascending; padded
    with the number of vertices.
    """
    table = np.full((len(coarse_faces), size), len(vertices), dtype=np.int64)
    for row, (face, center) in enumerate(zip(coarse_faces, centers, strict=True)):
        around = np.flatnonzero(np.isin(belongs, face))
        nearest = around[np.argsort(np.linalg.norm(vertices[around] - center, axis=1), kind="stable")[:size]]
        table[row, : len(nearest)] = np.sort(nearest)
    return table


def _edges(faces: Int[np.ndarray, "faces 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of every edge, in both directions, once each."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    start, end = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0).T
    return start, end


def _spread(vertices: np.ndarray, among: np.ndarray, count: int, density: np.ndarray) -> np.ndarray:
    """``count`` of the vertices ``among``, each as far as possible from those before it."""
    points, weights = vertices[among], density[among]
    chosen = [int(np.argmax(points[:, 2]))]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int((distance * weights).argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return among[np.array(chosen)]
