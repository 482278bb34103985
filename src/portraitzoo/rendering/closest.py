"""Which part of a mesh is closest to a point: faces, vertices, and coordinates relative to a face.

On a CPU, k-d trees leave a few faces or vertices to be measured; on a GPU everything is compared with everything. The
numbers are the same: those of PyTorch3D's kernels, which however take points beside very small faces to be above them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

_EPSILON = 1e-8
_SLACK = 1e-5  # bounds are computed with rounding; this much, relative to the coordinates, makes up for it
_PAIRS = 1 << 17  # measured at a time: what a cache holds
_COMPARED = 1 << 26
_LEAF = 32
_CLOUD_STEPS = 3  # of the cloud along the longest edge of a face of mean size
_EXACT = "donot_use_mm_for_euclid_dist"
_CELL_BITS = 10
_SPREADING = ((16, 0x30000FF), (8, 0x300F00F), (4, 0x30C30C3), (2, 0x9249249))  # ten bits, two free ones between them
_FEW = 1 << 15  # distances that are measured sooner than a tree is built

_Vector = Sequence[Tensor]


def closest_faces(
    points: Float[Tensor, "batch points 3"],
    vertices: Float[Tensor, "batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    *,
    min_area: float = 0.0,
) -> tuple[Float[Tensor, "batch points"], Int[Tensor, "batch points"]]:
    """Squared distance to the closest face of a mesh, and which one that is; no gradients.

    Args:
        points: in the meshes' coordinates.
        vertices: one mesh for each batch of points.
        faces: triangles.
        min_area: a triangle smaller than this counts as its three edges only, so that a point above its middle is
            closest to one of those. GenHead and Portrait4D were trained with 5e-3, above nearly every face they have.

    Returns:
        Squared distances, and faces; of several equally close ones the last (faces that share the closest edge are,
        but for rounding).
    """
    found = []
    with torch.no_grad():
        for one, mesh in zip(points.float(), vertices.float(), strict=True):
            search = _FaceSearch(mesh[faces], min_area)
            size = max(1, _COMPARED // max(len(faces), 1))
            keys = [_closest_keys(part, search) for part in one.split(size)]
            found.append(torch.cat(keys))
        key = torch.stack(found)
        distance = (key >> 32).to(torch.int32).view(torch.float32)
        return distance, len(faces) - 1 - (key & 0xFFFFFFFF)


def nearest_vertices(
    points: Float[Tensor, "points 3"], vertices: Float[Tensor, "vertices 3"], count: int = 1
) -> tuple[Float[Tensor, "points count"], Int[Tensor, "points count"]]:
    """Squared distances to the nearest vertices, ascending, and which these are; no gradients.

    Args:
        points: in the vertices' coordinates.
        vertices: at least ``count``.
        count: how many for each point.
    """
    with torch.no_grad():
        points, vertices = points.float(), vertices.float()
        if points.device.type == "cpu" and len(points) * len(vertices) > _FEW:
            # Neighbours in space ask for the same branches: in this order the tree answers several times faster.
            order = _along_a_curve(points).argsort()
            found = torch.empty(len(points), count, dtype=torch.int64)
            workers = torch.get_num_threads()
            _, index = _tree(vertices).query(points[order].numpy(), k=range(1, count + 1), workers=workers)
            found[order] = torch.from_numpy(np.asarray(index, dtype=np.int64))
        else:
            parts = points.split(max(1, _COMPARED // len(vertices)))
            found = torch.cat([_lowest(_squared(part, vertices), count) for part in parts])
        return (points[:, None] - vertices[found]).square().sum(-1), found


def _squared(points: Float[Tensor, "points 3"], vertices: Float[Tensor, "vertices 3"]) -> Tensor:
    x, y, z = (points[:, None] - vertices[None]).unbind(-1)
    return x * x + y * y + z * z


def _lowest(values: Float[Tensor, "rows columns"], count: int) -> Int[Tensor, "rows count"]:
    # Selecting one of thousands is many times quicker than sorting out the lowest few.
    return values.argmin(1, keepdim=True) if count == 1 else values.topk(count, largest=False).indices


def _tree(points: Float[Tensor, "points 3"]) -> cKDTree:
    return cKDTree(points.numpy(), leafsize=_LEAF, balanced_tree=False, compact_nodes=False)


def _along_a_curve(points: Float[Tensor, "points 3"]) -> Int[Tensor, " points"]:
    """Places of points on a Morton curve, which passes through all cells of a cube one neighbourhood after another."""
    if not len(points):
        return torch.empty(0, dtype=torch.int64)
    low = points.amin(0)
    side = (points.amax(0) - low).amax().clamp(min=1e-9)
    cell = ((points - low) / side * (2**_CELL_BITS - 1)).long()
    for shift, mask in _SPREADING:
        cell = (cell | cell << shift) & mask
    return cell[:, 0] | cell[:, 1] << 1 | cell[:, 2] << 2


def plane_coordinates(
    points: Float[Tensor, "*batch 3"], corners: Float[Tensor, "*batch 3 3"]
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """Where points are relative to triangles: barycentric coordinates of their projections on the triangles' planes,
    which may be negative or exceed 1, and heights above the planes (positive outside).

    Args:
        points: anywhere.
        corners: of the triangles, counter-clockwise seen from outside.
    """
    first, e1, e2 = corners[..., 0, :], corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    offset = points - first
    d11, d12, d22 = (e1 * e1).sum(-1), (e1 * e2).sum(-1), (e2 * e2).sum(-1)
    o1, o2 = (offset * e1).sum(-1), (offset * e2).sum(-1)
    denominator = (d11 * d22 - d12 * d12).clamp(min=1e-12)
    second, third = (d22 * o1 - d12 * o2) / denominator, (d11 * o2 - d12 * o1) / denominator
    weights = torch.stack([1 - second - third, second, third], dim=-1)
    foot = (weights[..., None] * corners).sum(-2)
    return weights, ((points - foot) * face_normals(corners)).sum(-1)


def face_normals(corners: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Unit normals of triangles, outward where their corners are counter-clockwise seen from outside."""
    across = torch.linalg.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    return torch.nn.functional.normalize(across, dim=-1)


class _FaceSearch:
    """The faces of one mesh; on a GPU with spheres around them, on a CPU with a cloud of points spread over them.

    In the cloud every place of a face (of its edges, where only they count) is within ``spacing`` of a point of that
    face. The line from a query to the closest place of a face meets the face, or the edge, at a right angle, or ends at
    a corner, which is in the cloud. So a face at distance d has a point of the cloud within sqrt(d^2 + spacing^2).
    """

    def __init__(self, corners: Float[Tensor, "faces 3 3"], min_area: float) -> None:
        self.corners, self.min_area = corners, min_area
        if corners.device.type == "cpu":
            cloud, self.owner, self.spacing = _cloud(corners, min_area)
            self.tree = _tree(cloud)
            return
        self.vertices = corners.flatten(0, 1).unique(dim=0)
        self.center = (corners.amin(1) + corners.amax(1)) / 2
        self.radius = torch.linalg.vector_norm(corners - self.center[:, None], dim=-1).amax(1)

    def candidates(self, points: Float[Tensor, "points 3"]) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Pairs of points and faces that may be the closest, some of them twice."""
        slack = _SLACK * (1 + points.abs().amax(1))
        if points.device.type != "cpu":
            reach = torch.cdist(points, self.vertices, compute_mode=_EXACT).amin(1) + slack
            distance = torch.cdist(points, self.center, compute_mode=_EXACT) - self.radius
            return (distance <= reach[:, None]).nonzero(as_tuple=True)
        if not len(points):
            return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        # Neighbours in space ask for the same branches: in this order the tree answers several times faster.
        order = _along_a_curve(points).argsort()
        asked, workers = points[order].numpy(), torch.get_num_threads()
        nearest = torch.from_numpy(self.tree.query(asked, workers=workers)[0]).float() + slack[order]
        reach = (nearest.square() + self.spacing**2).sqrt()
        lists = self.tree.query_ball_point(asked, reach.numpy(), return_sorted=False, workers=workers)
        counts = torch.tensor([len(one) for one in lists])
        found = torch.from_numpy(np.fromiter(itertools.chain.from_iterable(lists), np.int64, int(counts.sum())))
        return torch.repeat_interleave(order, counts), self.owner[found]


def _cloud(
    corners: Float[Tensor, "faces 3 3"], min_area: float
) -> tuple[Float[Tensor, "cloud 3"], Int[Tensor, " cloud"], float]:
    """Points spread over faces (over the edges of those smaller than ``min_area``), the face of each, their spacing."""
    edges = corners.roll(-1, 1) - corners
    longest = torch.linalg.vector_norm(edges, dim=-1).amax(1)
    step = float(longest.mean().clamp(min=_EPSILON)) / _CLOUD_STEPS
    # Faces many times larger than most must not make the cloud huge: it may be coarser on them.
    steps = (longest / step).ceil().clamp(1, 4 * _CLOUD_STEPS).long()
    areas = torch.linalg.vector_norm(torch.linalg.cross(edges[:, 0], edges[:, 1]), dim=-1) / 2
    points, owners, spacing = [], [], 0.0
    for count in steps.unique().tolist():
        for whole in (False, True):
            chosen = ((steps == count) & ((areas >= min_area) == whole)).nonzero()[:, 0]
            if not len(chosen):
                continue
            number = torch.arange(count + 1)
            first, second = (axis.flatten() for axis in torch.meshgrid(number, number, indexing="ij"))
            kept = first + second <= count
            if not whole:
                kept &= (first == 0) | (second == 0) | (first + second == count)
            first, second = first[kept], second[kept]
            weights = torch.stack([count - first - second, first, second], dim=1).float() / count
            points.append((weights @ corners[chosen]).flatten(0, 1))
            owners.append(chosen.repeat_interleave(len(weights)))
            # Half a step along an edge; within a triangle no place is further from a corner than this.
            reach = 3**-0.5 if whole else 0.5
            spacing = max(spacing, float(longest[chosen].max()) / count * reach)
    return torch.cat(points), torch.cat(owners), spacing


def _closest_keys(points: Float[Tensor, "points 3"], search: _FaceSearch) -> Int[Tensor, " points"]:
    """Squared distance (its bits, which order as it does) and, below, how many faces come after the closest one."""
    owner, face = search.candidates(points)
    nearest = torch.full((len(points),), torch.iinfo(torch.int64).max, device=points.device)
    for at, which in zip(owner.split(_PAIRS), face.split(_PAIRS), strict=True):
        distance = _squared_to_faces(points[at], search.corners[which], search.min_area)
        key = distance.view(torch.int32).long() << 32 | (len(search.corners) - 1 - which)
        nearest.scatter_reduce_(0, at, key, "amin")
    return nearest


def _squared_to_faces(
    points: Float[Tensor, "n 3"], corners: Float[Tensor, "n 3 3"], min_area: float
) -> Float[Tensor, " n"]:
    p: _Vector = points.unbind(-1)
    corner: list[_Vector] = [part.unbind(-1) for part in corners.unbind(1)]
    a, b, c = corner
    edges = torch.minimum(_squared_to_segments(p, a, b), _squared_to_segments(p, a, c))
    edges = torch.minimum(edges, _squared_to_segments(p, b, c))
    normal = _cross(_minus(c, a), _minus(b, a))
    length = _dot(normal, normal).sqrt()
    large = ((length / 2 >= min_area) & (length > _EPSILON)).nonzero()[:, 0]
    if len(large):
        a, b, c, p, normal = ([part[large] for part in vector] for vector in (*corner, p, normal))
        unit = [part / length[large] for part in normal]
        height = _dot(_minus(a, p), unit)
        foot = [q + height * n for q, n in zip(p, unit, strict=True)]
        edges[large] = torch.where(_inside(foot, a, b, c), height * height, edges[large])
    return edges


def _squared_to_segments(p: _Vector, a: _Vector, b: _Vector) -> Tensor:
    along = _minus(b, a)
    length = _dot(along, along)
    share = (_dot(along, _minus(p, a)) / length).clamp(0, 1)
    share = torch.where(length <= _EPSILON, 1.0, share)
    off = [q - (start + share * step) for q, start, step in zip(p, a, along, strict=True)]
    return _dot(off, off)


def _inside(p: _Vector, a: _Vector, b: _Vector, c: _Vector) -> Tensor:
    e1, e2, offset = _minus(b, a), _minus(c, a), _minus(p, a)
    d11, d12, d22 = _dot(e1, e1), _dot(e1, e2), _dot(e2, e2)
    o1, o2 = _dot(offset, e1), _dot(offset, e2)
    denominator = d11 * d22 - d12 * d12
    second, third = (d22 * o1 - d12 * o2) / denominator, (d11 * o2 - d12 * o1) / denominator
    first = 1 - second - third
    return (torch.minimum(torch.minimum(first, second), third) >= 0) & (
        torch.maximum(torch.maximum(first, second), third) <= 1
    )


def _minus(a: _Vector, b: _Vector) -> _Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


def _dot(a: _Vector, b: _Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: _Vector, b: _Vector) -> _Vector:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
