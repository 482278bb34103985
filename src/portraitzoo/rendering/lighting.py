"""Light from all around as spherical harmonics of degree 0 to 2: irradiance, and what of it arrives through shadow.

Nine numbers a colour channel describe an environment well enough for diffuse surfaces (Ramamoorthi and Hanrahan 2001);
precomputed transfer (Sloan, Kautz and Snyder 2002) adds the shadows that a shape throws on itself.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.rendering.cameras import Camera, pinhole
from portraitzoo.rendering.rasterisation import project, rasterise

NUM_COEFFICIENTS = 9

# Convolution with the clamped cosine scales degree l by A_l (pi, 2 pi / 3, pi / 4), here divided by pi, so that an
# environment of constant radiance 1 gives irradiance 1 (Ramamoorthi and Hanrahan 2001, equation 8).
_COSINE = torch.tensor([1.0] + [2 / 3] * 3 + [1 / 4] * 5)


def spherical_harmonics(directions: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 9"]:
    """Real orthonormal spherical harmonics of degrees 0 to 2 at unit vectors: Y00, Y1-1, Y10, Y11, Y2-2 ... Y22."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.5 * math.sqrt(1 / math.pi)),
            math.sqrt(3 / (4 * math.pi)) * y,
            math.sqrt(3 / (4 * math.pi)) * z,
            math.sqrt(3 / (4 * math.pi)) * x,
            0.5 * math.sqrt(15 / math.pi) * x * y,
            0.5 * math.sqrt(15 / math.pi) * y * z,
            0.25 * math.sqrt(5 / math.pi) * (3 * z**2 - 1),
            0.5 * math.sqrt(15 / math.pi) * x * z,
            0.25 * math.sqrt(15 / math.pi) * (x**2 - y**2),
        ],
        dim=-1,
    )


def ambient(colour: Float[Tensor, " 3"]) -> Float[Tensor, "9 3"]:
    """Environment of one radiance everywhere; it lights every normal with irradiance ``colour``."""
    coefficients = torch.zeros(NUM_COEFFICIENTS, 3)
    coefficients[0] = colour * 2 * math.sqrt(math.pi)
    return coefficients


def distant(direction: Float[Tensor, " 3"], colour: Float[Tensor, " 3"]) -> Float[Tensor, "9 3"]:
    """A far lamp in unit ``direction``, which lights a surface facing it with about irradiance ``colour``.

    About, because degrees above 2 are cut off: a lamp becomes a soft box (17/16 of ``colour`` straight on).
    """
    return math.pi * spherical_harmonics(direction)[:, None] * colour


def irradiance(light: Float[Tensor, "9 3"], normals: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
    """Irradiance over pi (a white diffuse surface's radiance) at unit normals; never negative."""
    return ((spherical_harmonics(normals) * _COSINE.to(normals)) @ light.to(normals)).clamp(min=0)


def transfer(
    vertices: Float[Tensor, "vertices 3"],
    normals: Float[Tensor, "vertices 3"],
    faces: Int[Tensor, "faces 3"],
    *,
    directions: int = 48,
    resolution: int = 96,
) -> Float[Tensor, "vertices 9"]:
    """Precomputed transfer with shadows: ``transfer @ light`` is what :func:`irradiance` gives, less what is hidden.

    Visibility towards each of ``directions`` evenly spread directions is read from a shadow map.

    Args:
        vertices: world coordinates.
        normals: unit vectors.
        faces: triangles that throw shadows.
        directions: number of shadow maps.
        resolution: side of each in texels.
    """
    toward = fibonacci_sphere(directions).to(vertices)
    radius = float(vertices.norm(dim=-1).max())
    distance = 20 * radius
    lens = pinhole(distance / (2 * radius)).to(vertices)
    total = torch.zeros(len(vertices), NUM_COEFFICIENTS, dtype=vertices.dtype, device=vertices.device)
    basis = spherical_harmonics(toward)
    for direction, harmonics in zip(toward, basis, strict=True):
        camera = Camera(_facing(direction, distance)[None], lens[None])
        shadow = rasterise(vertices[None], faces, camera, resolution, cull_backfaces=False).depth[0]
        image, depth = project(vertices[None], camera)
        cell = (image[0] * resolution).long().clamp(0, resolution - 1)
        nearest = shadow[cell[:, 1], cell[:, 0]]
        # The slack, a few texels, keeps a surface from shading itself.
        visible = (nearest == 0) | (depth[0] <= nearest + 6 * radius / resolution * 0.5)
        facing = (normals @ direction).clamp(min=0)
        total += (visible * facing)[:, None] * harmonics
    return total * 4 / directions


def fibonacci_sphere(count: int) -> Float[Tensor, "count 3"]:
    """``count`` unit vectors spread evenly over the sphere."""
    index = torch.arange(count) + 0.5
    height = 1 - 2 * index / count
    angle = math.pi * (1 + math.sqrt(5)) * index
    around = (1 - height**2).sqrt()
    return torch.stack([around * angle.cos(), height, around * angle.sin()], dim=-1)


def _facing(direction: Float[Tensor, " 3"], distance: float) -> Float[Tensor, "4 4"]:
    """cam2world of a camera at ``distance`` in ``direction`` that looks at the origin."""
    forward = -direction
    helper = torch.eye(3).to(direction)[direction.abs().argmin()]
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, helper), dim=0)
    pose = torch.eye(4).to(direction)
    pose[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)
    pose[:3, 3] = distance * direction
    return pose
