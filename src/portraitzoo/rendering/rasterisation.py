"""Meshes to pixels: which face each pixel sees, where on it, how far; and vertex attributes carried to pixels.

:func:`rasterise` (with a camera) and :func:`rasterise_orthographic` stand in front of three backends that agree, see
:mod:`~portraitzoo.rendering.visibility`: ``"torch"``, written here, which visits only the pixels inside every face's
bounding box and is therefore quick on a CPU, ``"pytorch3d"`` and ``"nvdiffrast"``. The choice of face is not
differentiable; :attr:`Fragments.barycentric` and :attr:`Fragments.depth` are, with respect to the vertices, on all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.visibility import Backend, visible_faces


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
        backend: ``"torch"``, ``"pytorch3d"`` or ``"nvdiffrast"`` (extras).

    Raises:
        ZooError: if the backend's package is not installed, or it cannot draw on the vertices' device.
    """
    image, depth = project(vertices, camera)
    face = visible_faces(
        image, depth, faces, resolution, cull_backfaces=cull_backfaces, perspective=True, backend=backend
    )
    return _fragments(face, image, depth, faces, perspective=True)


def rasterise_orthographic(
    vertices: Float[Tensor, "batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    resolution: int,
    *,
    half_side: float,
    cull_backfaces: bool = True,
    backend: Backend = "torch",
) -> Fragments:
    """A map of the x-y plane: at every pixel's centre the lowest face above it, in the direction of z.

    Args:
        vertices: only faces wholly above the plane z = 0 are drawn.
        faces: vertex indices; counter-clockwise seen from outside.
        resolution: side of the square pictures in pixels; x grows to the right and y upwards.
        half_side: x or y at the borders of the picture.
        cull_backfaces: leave out faces whose outside looks down.
        backend: ``"torch"``, ``"pytorch3d"`` or ``"nvdiffrast"`` (extras).

    Returns:
        Fragments whose depth is z.

    Raises:
        ZooError: as :func:`rasterise`.
    """
    x, y, depth = vertices.unbind(-1)
    image = torch.stack([x, -y], dim=-1) / (2 * half_side) + 0.5
    face = visible_faces(
        image, depth, faces, resolution, cull_backfaces=cull_backfaces, perspective=False, backend=backend
    )
    return _fragments(face, image, depth, faces, perspective=False)


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


def position_map(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], vertices: Float[Tensor, "batch vertices 3"]
) -> Float[Tensor, "batch height width 3"]:
    """World coordinates of what the pixels see; 0 where there is no face."""
    return interpolate(fragments, faces, vertices)


def normal_map(
    fragments: Fragments, faces: Int[Tensor, "faces 3"], vertices: Float[Tensor, "batch vertices 3"]
) -> Float[Tensor, "batch height width 3"]:
    """Unit normals (world axes) of what the pixels see, smooth over faces; 0 where there is no face."""
    return torch.nn.functional.normalize(interpolate(fragments, faces, vertex_normals(vertices, faces)), dim=-1)


def face_map(
    fragments: Fragments, values: Shaped[Tensor, " faces"], nothing: float = 0
) -> Shaped[Tensor, "batch height width"]:
    """A number or truth of each face (its part, a mask) at the pixels; ``nothing`` where there is no face."""
    found = values[fragments.face.clamp(min=0)]
    return torch.where(fragments.covered, found, torch.full_like(found, nothing))


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
    perspective: bool,
) -> Fragments:
    batch, height, width = face.shape
    flat = face.reshape(-1)
    where = (flat >= 0).nonzero()[:, 0]
    picture = where // (height * width)
    corners = faces[flat[where]] + (picture * image.shape[1])[:, None]
    at = torch.stack([where % width, where // width % height], dim=-1).to(image.dtype)
    distance = depth.reshape(-1)[corners]
    pixels = image * image.new_tensor([width, height]) - 0.5  # pixel centres at whole numbers
    shares = _barycentric(pixels.reshape(-1, 2)[corners], at)
    if perspective:
        # 1/z, not z, is linear on the screen; so are the attributes divided by z.
        over_depth = shares / distance
        seen = 1 / over_depth.sum(-1)
        shares = over_depth * seen[:, None]
    else:
        seen = (shares * distance).sum(-1)
    weights = torch.zeros(len(flat), 3, dtype=image.dtype, device=image.device).index_put((where,), shares)
    distances = torch.zeros(len(flat), dtype=depth.dtype, device=depth.device).index_put((where,), seen)
    return Fragments(face, weights.view(batch, height, width, 3), distances.view(batch, height, width))


def _barycentric(triangle: Float[Tensor, "n 3 2"], point: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Weights of the corners (screen space): signed areas opposite to each corner over the whole area."""
    x, y = (triangle - point[:, None]).unbind(-1)
    opposite = x.roll(-1, 1) * y.roll(-2, 1) - x.roll(-2, 1) * y.roll(-1, 1)
    weights = (opposite / opposite.sum(-1, keepdim=True)).clamp(min=0)  # a pixel in the slack belongs to the edge
    return weights / weights.sum(-1, keepdim=True)
