"""Meshes to pixels: which face each pixel sees, where on it, how far; and vertex attributes carried to pixels.

One function, :func:`rasterise`, stands in front of two backends that agree: ``"torch"``, written here, which visits
only the pixels inside every face's bounding box and is therefore quick on a CPU, and ``"pytorch3d"``. The choice of
face is not differentiable; :attr:`Fragments.barycentric` and :attr:`Fragments.depth` are, with respect to the
vertices, on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from portraitzoo.extras import import_extra
from portraitzoo.rendering.cameras import Camera

Backend = Literal["torch", "pytorch3d"]

# Faces reach this much (pixels) over their edges: rounding must not open cracks between neighbours.
_SLACK = 1e-3
NEAR = 1e-2  # faces with a vertex closer to the camera plane than this are not drawn; heads never come near it


@dataclass(frozen=True)
class Fragments:
    """What each pixel of a batch of pictures sees.

    Attributes:
        face: index of the nearest face, -1 where there is none.
        barycentric: perspective-correct weights of that face's three vertices; they sum to 1 (all 0 where no face).
        depth: distance along the camera's z axis in world units (0 where no face).
    """

    face: Int[Tensor, "batch height width"]
    barycentric: Float[Tensor, "batch height width 3"]
    depth: Float[Tensor, "batch height width"]

    @property
    def covered(self) -> Bool[Tensor, "batch height width"]:
        """Pixels that see a face."""
        return self.face >= 0


def project(
    points: Float[Tensor, "batch points 3"], camera: Camera
) -> tuple[Float[Tensor, "batch points 2"], Float[Tensor, "batch points"]]:
    """Image coordinates and depth of world points.

    Args:
        points: world coordinates.
        camera: batch of cameras.

    Returns:
        Coordinates in units of the image size (0 is the left or upper border, 1 the right or lower one), and the
        distance along the camera's z axis. The pixel (row i, column j) of an R x R picture has its centre, through
        which its ray passes, at ((j + 0.5) / R, (i + 0.5) / R).
    """
    rotation, position = camera.cam2world[:, :3, :3], camera.cam2world[:, :3, 3]
    local = (points - position[:, None]) @ rotation
    image = local @ camera.intrinsics.mT
    return image[..., :2] / image[..., 2:], local[..., 2]


def rasterise(
    vertices: Float[Tensor, "batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    camera: Camera,
    resolution: int,
    *,
    cull_backfaces: bool = True,
    backend: Backend = "torch",
) -> Fragments:
    """Find the nearest face at every pixel's centre.

    Args:
        vertices: world coordinates, one set per picture.
        faces: vertex indices; counter-clockwise seen from outside.
        camera: batch of ``batch`` cameras.
        resolution: side of the square pictures in pixels.
        cull_backfaces: leave out faces that show their inside.
        backend: ``"torch"`` or ``"pytorch3d"`` (an extra).

    Raises:
        ZooError: if the backend's package is not installed.
    """
    image, depth = project(vertices, camera)
    image = image * resolution - 0.5  # pixel centres at whole numbers
    with torch.no_grad():
        if backend == "pytorch3d":
            face = _visible_faces_pytorch3d(image, depth, faces, resolution, cull_backfaces)
        else:
            face = torch.stack(
                [
                    _visible_faces(picture, distance, faces, resolution, cull_backfaces)
                    for picture, distance in zip(image, depth, strict=True)
                ]
            )
    return _fragments(face, image, depth, faces)


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], attributes: Float[Tensor, "batch vertices channels"]
) -> Float[Tensor, "batch height width channels"]:
    """Vertex attributes at the pixels, weighted by the barycentric coordinates; 0 where there is no face."""
    values = torch.zeros(*fragments.face.shape, attributes.shape[-1], dtype=attributes.dtype, device=attributes.device)
    picture, row, column = fragments.covered.nonzero(as_tuple=True)
    corners = faces[fragments.face[picture, row, column]]
    weights = fragments.barycentric[picture, row, column]
    sampled = (attributes[picture[:, None], corners] * weights[..., None]).sum(1)
    return values.index_put((picture, row, column), sampled)


def vertex_normals(
    vertices: Float[Tensor, "batch vertices 3"], faces: Int[Tensor, "faces 3"]
) -> Float[Tensor, "batch vertices 3"]:
    """Unit normals at the vertices: the mean of the adjoining faces' normals, weighted by their area."""
    corners = vertices[:, faces]
    areas = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals = normals.index_add(1, faces[:, corner], areas)
    return torch.nn.functional.normalize(normals, dim=-1)


def _fragments(
    face: Int[Tensor, "batch height width"],
    image: Float[Tensor, "batch vertices 2"],
    depth: Float[Tensor, "batch vertices"],
    faces: Int[Tensor, "faces 3"],
) -> Fragments:
    batch, height, width = face.shape
    flat = face.reshape(-1)
    where = (flat >= 0).nonzero()[:, 0]
    picture = where // (height * width)
    corners = faces[flat[where]] + (picture * image.shape[1])[:, None]
    at = torch.stack([where % width, where // width % height], dim=-1).to(image.dtype)
    distance = depth.reshape(-1)[corners]
    # 1/z, not z, is linear on the screen; so are the attributes divided by z.
    over_depth = _barycentric(image.reshape(-1, 2)[corners], at) / distance
    nearness = over_depth.sum(-1, keepdim=True)
    weights = torch.zeros(len(flat), 3, dtype=image.dtype, device=image.device)
    distances = torch.zeros(len(flat), dtype=depth.dtype, device=depth.device)
    weights = weights.index_put((where,), over_depth / nearness)
    distances = distances.index_put((where,), 1 / nearness[:, 0])
    return Fragments(face, weights.view(batch, height, width, 3), distances.view(batch, height, width))


def _barycentric(triangle: Float[Tensor, "n 3 2"], point: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Weights of the corners (screen space): signed areas opposite to each corner over the whole area."""
    x, y = (triangle - point[:, None]).unbind(-1)
    opposite = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    weights = (opposite / opposite.sum(-1, keepdim=True)).clamp(min=0)  # a pixel in the slack belongs to the edge
    return weights / weights.sum(-1, keepdim=True)


def _visible_faces(
    image: Float[Tensor, "vertices 2"],
    depth: Float[Tensor, " vertices"],
    faces: Int[Tensor, "faces 3"],
    resolution: int,
    cull_backfaces: bool,
) -> Int[Tensor, "height width"]:
    """Scan conversion in two steps: faces into their spans on the rows of pixels, spans into pixels."""
    (x, y), distance = image[faces].unbind(-1), depth[faces]
    # Edge functions w_i = a_i x + b_i y + c_i, scaled to be the barycentric weights.
    a, b = y.roll(-1, 1) - y.roll(-2, 1), x.roll(-2, 1) - x.roll(-1, 1)
    c = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    area = c.sum(1)
    # Image y points down, so that a face seen from outside turns the other way round: its signed area is negative.
    drawn = (area < 0) if cull_backfaces else (area != 0)
    top = y.amin(1).ceil().clamp(min=0)
    height = (y.amax(1).floor().clamp(max=resolution - 1) - top + 1).clamp(min=0)
    drawn &= (distance.amin(1) > NEAR) & (height > 0)
    chosen = drawn.nonzero()[:, 0]
    a, b, c = (value[chosen] / area[chosen, None] for value in (a, b, c))

    span, rank = _expand(height[chosen].long())
    row = top[chosen][span] + rank
    slope, level = a[span], b[span] * row[:, None] + c[span]
    crossing = -level / slope
    left = torch.where(slope > 0, crossing, -torch.inf).amax(1).sub(_SLACK).clamp(min=0)
    right = torch.where(slope < 0, crossing, torch.inf).amin(1).add(_SLACK).clamp(max=resolution - 1)
    possible = ((slope != 0) | (level >= 0)).all(1)
    first = left.ceil()
    length = torch.where(possible, (right.floor() - first + 1).clamp(min=0), 0.0)
    # 1/z is linear along the span.
    nearness = (slope / distance[chosen][span]).sum(1), (level / distance[chosen][span]).sum(1)

    pixel, rank = _expand(length.long())
    column = first[pixel] + rank
    depths = 1 / (nearness[0][pixel] * column + nearness[1][pixel])
    # The bits of a positive float order as the float does: one integer minimum finds depth and face together.
    key = depths.float().view(torch.int32).long() << 32 | chosen[span][pixel]
    nothing = torch.iinfo(torch.int64).max
    nearest = torch.full((resolution * resolution,), nothing, dtype=torch.int64, device=faces.device)
    nearest.scatter_reduce_(0, (row[pixel] * resolution + column).long(), key, "amin")
    face = torch.where(nearest == nothing, -1, nearest & 0xFFFFFFFF)
    return face.view(resolution, resolution)


def _expand(counts: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """``counts[i]`` copies of each i, and the rank of each copy among its like."""
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    rank = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
    return owner, rank


def _visible_faces_pytorch3d(
    image: Float[Tensor, "batch vertices 2"],
    depth: Float[Tensor, "batch vertices"],
    faces: Int[Tensor, "faces 3"],
    resolution: int,
    cull_backfaces: bool,
) -> Int[Tensor, "batch height width"]:
    rasterizer = import_extra("pytorch3d.renderer.mesh.rasterize_meshes", "synthetic")
    structures = import_extra("pytorch3d.structures", "synthetic")
    # Its image plane has x to the left and y up, from -1 to 1 between the borders.
    plane = 1 - (image + 0.5) * 2 / resolution
    vertices = torch.cat([plane, depth[..., None]], dim=-1)
    batch = vertices.shape[0]
    face, *_ = rasterizer.rasterize_meshes(
        structures.Meshes(list(vertices), [faces] * batch),
        image_size=resolution,
        blur_radius=0.0,
        faces_per_pixel=1,
        bin_size=0,
        perspective_correct=True,
        cull_backfaces=cull_backfaces,
    )
    # Faces are numbered through the whole batch.
    first = torch.arange(batch, device=faces.device)[:, None, None] * len(faces)
    return torch.where(face[..., 0] < 0, -1, face[..., 0] - first)
