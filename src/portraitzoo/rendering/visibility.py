"""Which face of a mesh each pixel sees: three backends with one rule.

The rule is PyTorch3D's: a face is seen by the pixels whose centres lie inside it, the nearest one wins, and faces that
reach behind the image plane or hardly have an area are left out. ``torch`` rounds as ``pytorch3d`` does, but gives a
centre exactly on an edge to the faces on both sides, where PyTorch3D gives it to neither and leaves a crack.
``nvdiffrast`` snaps vertices to sixteenths of a pixel, which moves some pixels on the edges of faces.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.extras import import_extra

Backend = Literal["torch", "pytorch3d", "nvdiffrast"]

NEAREST = 1e-8  # faces with a vertex closer to the image plane than this are left out
LEAST_AREA = 1e-8  # twice the area in units of half the image's side; faces of no more are left out
_SLACK = 0.01  # pixels by which spans are taken too long before their ends are tested


def visible_faces(
    image: Float[Tensor, "batch vertices 2"],
    depth: Float[Tensor, "batch vertices"],
    faces: Int[Tensor, "faces 3"],
    resolution: int,
    *,
    cull_backfaces: bool,
    perspective: bool,
    backend: Backend,
) -> Int[Tensor, "batch resolution resolution"]:
    """Index of the nearest face at every pixel's centre, -1 where there is none; no gradients.

    Args:
        image: vertices in units of the image size, from its upper left corner.
        depth: of the vertices along the camera's axis; positive in front.
        faces: vertex indices, counter-clockwise seen from outside.
        resolution: side of the square pictures in pixels.
        cull_backfaces: leave out faces that show their inside.
        perspective: whether 1/depth (and not the depth) is linear on the picture.
        backend: ``"torch"``, ``"pytorch3d"``, or ``"nvdiffrast"`` (CUDA only).

    Raises:
        ZooError: if the backend's package is not installed, or it is nvdiffrast and the vertices are on a CPU.
    """
    plane = 1 - 2 * image.detach()  # PyTorch3D's: x to the left, y up, from -1 to 1 between the borders
    depth = depth.detach()
    drawn = (depth[:, faces] >= NEAREST).all(-1)
    area = _edge(plane[:, faces[:, 2]], plane[:, faces[:, 0]], plane[:, faces[:, 1]])
    drawn &= (area if cull_backfaces else area.abs()) > LEAST_AREA
    pictures = []
    for points, distance, which in zip(plane, depth, drawn, strict=True):
        chosen = which.nonzero()[:, 0]
        drawing = _Drawing(points, distance, faces[chosen], resolution, perspective)
        if backend == "torch":
            seen = _scan(drawing)
        elif backend == "pytorch3d":
            seen = _pytorch3d(drawing)
        elif backend == "nvdiffrast":
            seen = _nvdiffrast(drawing)
        else:
            raise ZooError(f"unknown rasteriser {backend!r}: choose torch, pytorch3d or nvdiffrast")
        pictures.append(torch.cat([chosen, chosen.new_tensor([-1])])[seen])  # nothing, -1, is the last of them
    return torch.stack(pictures)


@dataclass(frozen=True)
class _Drawing:
    """One picture to draw: vertices on PyTorch3D's image plane, their depths, and the faces that count."""

    plane: Float[Tensor, "vertices 2"]
    depth: Float[Tensor, " vertices"]
    faces: Int[Tensor, "faces 3"]
    resolution: int
    perspective: bool

    def empty(self) -> Int[Tensor, "resolution resolution"]:
        return torch.full((self.resolution, self.resolution), -1, device=self.faces.device)


def _edge(point: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Twice the signed area of (point, start, end), positive if that turns clockwise, rounded as PyTorch3D does."""
    along, off = end - start, point - start
    return off[..., 0] * along[..., 1] - off[..., 1] * along[..., 0]


def _scan(drawing: _Drawing) -> Int[Tensor, "resolution resolution"]:
    """Scan conversion: faces into spans on rows of pixels, spans into pixels, of which those at the ends are tested."""
    plane, resolution, corners = drawing.plane, drawing.resolution, drawing.faces
    # In double precision, with pixel centres at whole numbers: what is inside a span by the slack is inside the face.
    x, y = ((1 - plane[corners].double()) * (resolution / 2) - 0.5).unbind(-1)
    distance = drawing.depth[corners].double()
    top = (y.amin(1) - _SLACK).ceil().clamp(min=0)
    height = ((y.amax(1) + _SLACK).floor().clamp(max=resolution - 1) - top + 1).clamp(min=0)
    # Edge functions w_i = a_i x + b_i y + c_i, scaled to be the barycentric weights.
    a, b = y.roll(-1, 1) - y.roll(-2, 1), x.roll(-2, 1) - x.roll(-1, 1)
    c = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    area = c.sum(1, keepdim=True)
    a, b, c = a / area, b / area, c / area

    span, rank = _expand(height.long())
    row = top[span] + rank
    slope, level = a[span], b[span] * row[:, None] + c[span]
    crossing = -level / slope
    left = torch.where(slope > 0, crossing, -torch.inf).amax(1).sub(_SLACK).clamp(min=0)
    right = torch.where(slope < 0, crossing, torch.inf).amin(1).add(_SLACK).clamp(max=resolution - 1)
    first = left.ceil()
    length = (right.floor() - first + 1).nan_to_num(0.0).clamp(min=0)
    # What is linear along the span: 1/z, or z itself in an orthographic picture.
    linear = 1 / distance if drawing.perspective else distance
    steps, start = (slope * linear[span]).sum(1), (level * linear[span]).sum(1)

    pixel, rank = _expand(length.long())
    column = first[pixel] + rank
    ends = (column - left[pixel] < 2 * _SLACK) | (right[pixel] - column < 2 * _SLACK)
    ends |= (column == 0) | (column == resolution - 1)
    ends = ends.nonzero()[:, 0]
    keep = torch.ones(len(pixel), dtype=torch.bool, device=pixel.device)
    centers = 1 - (2 * torch.stack([column[ends], row[pixel[ends]]], dim=-1) + 1) / resolution
    keep[ends] = _inside(centers.to(plane.dtype), plane[corners[span[pixel[ends]]]])
    pixel, column = pixel[keep], column[keep]

    value = steps[pixel] * column + start[pixel]
    depths = (1 / value if drawing.perspective else value).float()
    # The bits of a positive float order as the float does: one integer minimum finds depth and face together.
    key = depths.clamp(min=0).view(torch.int32).long() << 32 | span[pixel]
    nothing = torch.iinfo(torch.int64).max
    nearest = torch.full((resolution * resolution,), nothing, dtype=torch.int64, device=corners.device)
    nearest.scatter_reduce_(0, (row[pixel] * resolution + column).long(), key, "amin")
    return torch.where(nearest == nothing, -1, nearest & 0xFFFFFFFF).view(resolution, resolution)


def _inside(point: Float[Tensor, "n 2"], corners: Float[Tensor, "n 3 2"]) -> Bool[Tensor, " n"]:
    a, b, c = corners.unbind(1)
    area = _edge(c, a, b) + LEAST_AREA
    weights = torch.stack([_edge(point, b, c), _edge(point, c, a), _edge(point, a, b)], dim=-1) / area[:, None]
    return (weights >= 0).all(-1)


def _expand(counts: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """``counts[i]`` copies of each i, and the rank of each copy among its like."""
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    rank = torch.arange(len(owner), device=counts.device) - (counts.cumsum(0) - counts)[owner]
    return owner, rank


def _pytorch3d(drawing: _Drawing) -> Int[Tensor, "resolution resolution"]:
    rasterizer = import_extra("pytorch3d.renderer.mesh.rasterize_meshes", "synthetic")
    structures = import_extra("pytorch3d.structures", "synthetic")
    if not len(drawing.faces):
        return drawing.empty()
    vertices = torch.cat([drawing.plane, drawing.depth[:, None]], dim=1).float()
    face, *_ = rasterizer.rasterize_meshes(
        structures.Meshes([vertices], [drawing.faces]),
        image_size=drawing.resolution,
        blur_radius=0.0,
        faces_per_pixel=1,
        bin_size=0,
        perspective_correct=drawing.perspective,
        cull_backfaces=False,
    )
    return face[0, ..., 0]


def _nvdiffrast(drawing: _Drawing) -> Int[Tensor, "resolution resolution"]:
    plane, depth, device = drawing.plane, drawing.depth, drawing.plane.device
    if device.type != "cuda":
        raise ZooError("nvdiffrast draws on CUDA devices only: choose torch or pytorch3d")
    dr = import_extra("nvdiffrast.torch", "nvdiffrast")
    if not len(drawing.faces):
        return drawing.empty()
    # Depth goes from -1 at the nearest to 1 at the farthest vertex: all of the buffer's precision for the mesh.
    near, far = depth[drawing.faces].min() * 0.99, depth[drawing.faces].max() * 1.01
    if drawing.perspective:
        scaled, w = ((far + near) * depth - 2 * far * near) / (far - near), depth
    else:
        scaled, w = 2 * (depth - near) / (far - near) - 1, torch.ones_like(depth)
    # Its first row is at y = -1, the picture's is at the top.
    clip = torch.stack([-plane[:, 0] * w, -plane[:, 1] * w, scaled, w], dim=-1).float().contiguous()
    triangles, size = drawing.faces.int().contiguous(), (drawing.resolution, drawing.resolution)
    found, _ = dr.rasterize(_cuda_context(device), clip[None], triangles, size, grad_db=False)
    return found[0, ..., 3].long() - 1


@functools.cache
def _cuda_context(device: torch.device) -> Any:
    return import_extra("nvdiffrast.torch", "nvdiffrast").RasterizeCudaContext(device=device)
