"""Surfaces of density fields as triangle meshes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.extras import import_extra
from portraitzoo.files import replacing

MESH_SUFFIXES = (".glb", ".ply", ".obj")

Density = Callable[[Float[Tensor, "points 3"]], Float[Tensor, " points"]]
Color = Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points 3"]]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in world axes (y up, a face looks toward +z, as glTF has it).

    Attributes:
        vertices: world xyz.
        faces: three vertex numbers each, counter-clockwise seen from outside.
        normals: unit vectors pointing outward, or None.
        colors: RGB in [0, 1], or None.
    """

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    normals: Float[Tensor, "vertices 3"] | None = None
    colors: Float[Tensor, "vertices 3"] | None = None

    def largest_component(self) -> Mesh:
        """The connected part with the most vertices: the head without what floats around it."""
        count = len(self.vertices)
        edges = torch.cat([self.faces[:, [0, 1]], self.faces[:, [1, 2]]]).numpy()
        links = coo_array((np.ones(len(edges), dtype=bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
        labels = torch.from_numpy(connected_components(links, directed=False)[1]).long()
        kept = labels == labels.bincount().argmax()
        renumbered = kept.cumsum(0) - 1
        return Mesh(
            self.vertices[kept],
            renumbered[self.faces[kept[self.faces[:, 0]]].long()],
            None if self.normals is None else self.normals[kept],
            None if self.colors is None else self.colors[kept],
        )

    def save(self, path: str | Path) -> Path:
        """Write the mesh with normals and vertex colours (8 bits) as .glb, .ply or .obj.

        Raises:
            ZooError: for another suffix, if trimesh is not installed, or the place cannot be written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind not in MESH_SUFFIXES:
            raise ZooError(f"a mesh is saved as {', '.join(MESH_SUFFIXES)}, not {path.name}: rename it")
        trimesh = import_extra("trimesh", "mesh")
        mesh = trimesh.Trimesh(
            self.vertices.numpy(),
            self.faces.numpy(),
            vertex_normals=None if self.normals is None else self.normals.numpy(),
            vertex_colors=None if self.colors is None else (self.colors.clamp(0, 1) * 255).round().byte().numpy(),
            process=False,
        )
        options = {} if kind == ".ply" else {"include_normals": self.normals is not None}
        content = mesh.export(file_type=kind[1:], **options)
        with replacing(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def sample_grid(
    density: Density, side: float = 1.0, resolution: int = 128, points_per_batch: int = 2**17
) -> Float[Tensor, "x y z"]:
    """Density at the points of a cubic grid around the origin, both ends included.

    Memory beside the result (4 bytes a point) is what ``density`` needs for ``points_per_batch`` points.

    Args:
        density: field at points of the world, on any device; called with points on the CPU.
        side: length of the cube in world units.
        resolution: points along each side, at least 2.
        points_per_batch: points of one call.

    Raises:
        ZooError: for fewer than 2 points a side or none in a batch.
    """
    if resolution < 2 or points_per_batch < 1:
        raise ZooError(
            f"a grid needs at least 2 points a side and 1 in a batch, not {resolution} and {points_per_batch}"
        )
    axis = torch.linspace(-side / 2, side / 2, resolution)
    values = torch.empty(resolution**3)
    for start in range(0, resolution**3, points_per_batch):
        number = torch.arange(start, min(start + points_per_batch, resolution**3))
        steps = (number // resolution**2, number // resolution % resolution, number % resolution)
        points = torch.stack([axis[step] for step in steps], dim=-1)
        values[start : start + len(number)] = density(points).to("cpu", torch.float32)
    return values.view(resolution, resolution, resolution)


def extract_mesh(
    density: Density,
    *,
    side: float = 1.0,
    resolution: int = 128,
    level: float = 10.0,
    color: Color | None = None,
    closed: bool = True,
    points_per_batch: int = 2**17,
) -> Mesh:
    """Surface where a density equals ``level``, by marching cubes (Lewiner et al. 2003); inside it is denser.

    Args:
        density: field at points of the world (see :func:`sample_grid`).
        side: length of the cube around the origin that is searched, world units.
        resolution: grid points along each side.
        level: density of the surface, in whatever units ``density`` has.
        color: RGB in [0, 1] at points of the world, called for the vertices; None leaves the mesh without colours.
        closed: cap the surface where it leaves the cube (a neck), so that the mesh is watertight.
        points_per_batch: points of one call of ``density`` or ``color``.

    Raises:
        ZooError: if the density passes ``level`` nowhere (the message gives its range) or is not finite, or
            scikit-image is not installed.
    """
    measure = import_extra("skimage.measure", "mesh")
    values = sample_grid(density, side, resolution, points_per_batch)
    low, high = values.min().item(), values.max().item()
    if not torch.isfinite(values).all():
        raise ZooError("the density is not finite everywhere: the weights are damaged or the precision is too low")
    if not low < level < high:
        raise ZooError(
            f"there is no surface of density {level:g}: on the {resolution}^3 grid it lies between {low:.4g} and "
            f"{high:.4g}; choose a level in between"
        )
    volume = values.numpy()
    if closed:
        volume = np.pad(volume, 1, constant_values=low)
    # scikit-image returns views, some of them reversed, which PyTorch does not take.
    found, faces, normals = map(
        np.ascontiguousarray, measure.marching_cubes(volume, level, gradient_direction="ascent")[:3]
    )
    grid = torch.from_numpy(found) - (1 if closed else 0)
    vertices = (grid.clamp(0, resolution - 1) / (resolution - 1) - 0.5) * side
    colors = None
    if color is not None:
        colors = torch.cat([color(points).cpu() for points in vertices.split(points_per_batch)])
    return Mesh(vertices, torch.from_numpy(faces).long(), torch.from_numpy(normals), colors)
