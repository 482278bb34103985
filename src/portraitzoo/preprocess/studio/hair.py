"""Hair: shells grown over the scalp, from shaven to shoulder length, and where on them strands are to be seen.

Hair is described in the direction from a point inside the skull: ``around`` is the angle about the vertical (0 at the
front) and ``down`` the angle from straight up, so that one hairline fits every head. A cap lies over the skull; long
styles add a curtain that hangs from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.faces.anny import HeadModel, Region
from portraitzoo.preprocess.studio.identity import Identity
from portraitzoo.preprocess.studio.noise import noise, smoothstep

CENTRE = torch.tensor([0.0, 0.06, -0.035])  # inside the skull, in the world of the placed head
_CROWN_TILT = math.radians(28)  # strands grow from the crown, which lies behind the top of the head

# The hairline, degrees around -> degrees down: brow-free forehead, temple, sideburn, over the ear, nape.
_AROUND = [0, 22, 38, 48, 56, 64, 72, 84, 98, 110, 125, 150, 180]
_DOWN = [65, 65, 63, 70, 81, 96, 101, 88, 85, 98, 114, 127, 132]


@dataclass(frozen=True)
class HairStyle:
    """Parameters of a haircut; lengths in world units, angles in radians.

    Attributes:
        thickness: of the cap over the skull; 0 for a shaven head.
        front: extra thickness above the forehead.
        fade: how much shorter short hair is at the sides, 0 to 1.
        receding: how far the hairline has gone back.
        fringe: how far hair falls over the forehead.
        curtain: height at which long hair ends; None for short hair.
        opening: angle from the front at which long hair parts from the face.
        curl: 0 straight to 1 tight curls.
        wave: amplitude of waves in long hair.
        coverage: 0 (shaven, a shadow) to 1 (opaque).
        seed: place in the noise fields.
    """

    thickness: float
    front: float
    fade: float
    receding: float
    fringe: float
    curtain: float | None
    opening: float
    curl: float
    wave: float
    coverage: float
    seed: float


@dataclass(frozen=True)
class HairMesh:
    """Shells of hair in the world of the placed head.

    Attributes:
        vertices: positions.
        faces: triangles.
        strand: coordinates across (in strands' widths) and along the strands.
        margin: distance inside the hairline or the tips, radians or world units; hair is where it is positive.
        tangent: unit direction of the strands.
        free: 1 where strands hang freely and end in tips, 0 where they lie on the skin.
    """

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    strand: Float[Tensor, "vertices 2"]
    margin: Float[Tensor, " vertices"]
    tangent: Float[Tensor, "vertices 3"]
    free: Float[Tensor, " vertices"]


def sample_style(random: np.random.Generator, identity: Identity) -> HairStyle:
    """A random haircut; long hair is likelier on women, a receding hairline on old men."""
    female = identity.femininity > 0.5
    curl = float(random.beta(0.6, 0.6) if identity.phenotype["african"] > 0.5 else random.beta(0.5, 2.0))
    kind = random.random()
    long = kind < (0.62 if female else 0.10)
    shaven = not long and kind > (0.99 if female else 0.9)
    receding = 0.0 if female else float(max(0.0, random.normal(0.3 * identity.age - 0.02, 0.10)))
    fringe = float(random.uniform(0.12, 0.36)) if random.random() < (0.35 if female else 0.2) else 0.0
    thickness = float(random.uniform(0.022, 0.05))
    if not long and curl > 0.6:
        thickness *= random.uniform(1.0, 2.0)
    return HairStyle(
        thickness=0.003 if shaven else thickness,
        front=0.0 if shaven or fringe else float(random.uniform(0.0, 0.035)),
        fade=float(random.uniform(0.2, 0.9)),
        receding=receding,
        fringe=0.0 if shaven or receding > 0.05 else fringe,
        curtain=float(random.choice([-0.16, -0.24, -0.42]) + random.uniform(-0.03, 0.03)) if long else None,
        opening=math.radians(random.uniform(56, 70)),
        curl=curl,
        wave=float(random.uniform(0, 0.012)),
        coverage=float(random.uniform(0.15, 0.6)) if shaven else 1.0,
        seed=float(random.uniform(0, 32)),
    )


def grow(style: HairStyle, vertices: Float[Tensor, "vertices 3"], head: HeadModel) -> HairMesh:
    """Hair of ``style`` over a placed head (world coordinates)."""
    skull = _skull(vertices, head)
    meshes = [_cap(style, skull)]
    if style.curtain is not None:
        meshes.append(_curtain(style, skull, style.curtain))
    first = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes]).tolist()
    return HairMesh(
        vertices=torch.cat([mesh.vertices for mesh in meshes]),
        faces=torch.cat([mesh.faces + start for mesh, start in zip(meshes, first[:-1], strict=True)]),
        strand=torch.cat([mesh.strand for mesh in meshes]),
        margin=torch.cat([mesh.margin for mesh in meshes]),
        tangent=torch.cat([mesh.tangent for mesh in meshes]),
        free=torch.cat([mesh.free for mesh in meshes]),
    )


def _skull(vertices: Float[Tensor, "vertices 3"], head: HeadModel) -> Float[Tensor, "points 3"]:
    """Points of the scalp and the face, seen from :data:`CENTRE`; without ears and shoulders."""
    skin = head.vertices_of(Region.SKIN)
    kept = (head.masks["ears"][skin] < 0.2) & (vertices[skin][:, 1] > -0.3)
    template = head.template[skin]
    kept &= (template[:, 1] > 0.60) & (template[:, 0].abs() < 0.083)
    points = vertices[skin[kept]] - CENTRE
    return points[points.norm(dim=-1) > 0.12]


def _radius(skull: Float[Tensor, "points 3"], directions: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Distance from the centre to the skull in unit directions: a smooth mean over the nearest points."""
    reach = skull.norm(dim=-1)
    likeness = directions @ (skull / reach[:, None]).T
    weights = torch.softmax(400 * likeness, dim=-1)
    return weights @ reach


def _hairline(style: HairStyle, around: Tensor) -> Tensor:
    """Angle down at which hair ends, for angles around in [-pi, pi]."""
    degrees = np.degrees(around.abs().numpy())
    down = np.interp(degrees, _AROUND, _DOWN)
    if style.curtain is not None:  # long hair lies over the ears
        opening = math.degrees(style.opening)
        down = np.where(
            degrees > opening - 10, np.maximum(down, np.interp(degrees, [opening - 10, opening - 2], [60, 125])), down
        )
    forehead = np.exp(-((degrees / 42) ** 4))
    down = down + np.degrees(style.fringe) * forehead * (1.0 if style.fringe else 0.0)
    temples = np.exp(-(((degrees - 36) / 16) ** 2))
    down = down - np.degrees(style.receding) * (forehead + 0.7 * temples)
    return torch.from_numpy(np.radians(down)).float()


def _cap(style: HairStyle, skull: Tensor) -> HairMesh:
    columns, rows = 120, 60
    around = torch.linspace(-math.pi, math.pi, columns + 1)
    down = torch.linspace(0.0, math.radians(158), rows + 1)
    down, around = torch.meshgrid(down, around, indexing="ij")
    local = torch.stack([down.sin() * around.sin(), down.cos(), down.sin() * around.cos()], dim=-1)
    cos, sin = math.cos(_CROWN_TILT), math.sin(_CROWN_TILT)
    tilt = torch.tensor([[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]])
    directions = (local @ tilt.T).reshape(-1, 3)
    true_around = torch.atan2(directions[:, 0], directions[:, 2])
    true_down = directions[:, 1].clamp(-1, 1).arccos()
    margin = _hairline(style, true_around) - true_down + 0.03
    # The shell rises from the hairline, so that no gap opens between hair and skin in any view.
    edge = smoothstep(0.0, 0.45 if style.fringe == 0 else 0.18, margin)
    front = smoothstep(1.0, 0.2, true_around.abs()) * smoothstep(0.05, 0.25, margin) * smoothstep(1.0, 0.3, margin)
    # Short hair is cut shorter at the sides than on top.
    sides = 1.0 if style.curtain is not None else 1 - style.fade * smoothstep(0.9, 1.7, true_down)
    depth = style.thickness * edge * sides + style.front * front
    if style.curtain is not None:
        depth = depth + 0.02 * smoothstep(style.opening - 0.1, style.opening + 0.25, true_around.abs()) * edge
    bumps = noise(directions * (5 + 9 * style.curl) + style.seed, 1, 1)[:, 0]
    depth = depth * (1 + (0.12 + 0.28 * style.curl) * bumps)
    radius = _radius(skull, directions) + depth + 0.002 - 0.014 * smoothstep(0.06, -0.05, margin)
    vertices = CENTRE + radius[:, None] * directions
    strand = torch.stack([around.reshape(-1) * 14, down.reshape(-1) * 3], dim=-1)
    return _grid(vertices, strand, margin, rows, columns, keep_above=-0.07, free=0.0)


def _curtain(style: HairStyle, skull: Tensor, end: float) -> HairMesh:
    columns, rows = 56, 20
    around = torch.linspace(style.opening, 2 * math.pi - style.opening, columns + 1)
    fall = torch.linspace(0, 1, rows + 1)
    fall, around = torch.meshgrid(fall, around, indexing="ij")
    fall, around = fall.reshape(-1), around.reshape(-1)
    top = 0.10
    height = top + fall * (end - top)
    outward = torch.stack([around.sin(), torch.zeros_like(around), around.cos()], dim=-1)
    ring = _radius(skull, torch.nn.functional.normalize(outward + torch.tensor([0.0, 0.1, 0.0]), dim=-1))
    from_edge = torch.minimum(around - style.opening, 2 * math.pi - style.opening - around)
    body = (style.thickness + 0.035) * smoothstep(-0.02, 0.4, from_edge) - 0.014
    sway = style.wave * torch.sin(16 * fall + 2 * torch.sin(3 * around + style.seed)) * fall
    # Hair narrows a little below the jaw, most at the back, where the neck is.
    narrowing = 0.05 * smoothstep(0.35, 1.0, fall) * (1 - 0.5 * outward[:, 2].clamp(min=0))
    radius = ring + body + sway - narrowing
    radius = radius + 0.010 * noise(torch.stack([around * 5 + style.seed, fall * 1.5], -1), 1, 2)[:, 0]
    radius = radius - 0.03 * smoothstep(0.25, 0.0, fall)  # it comes out from under the cap
    vertices = CENTRE + radius[:, None] * outward
    vertices[:, 1] = height
    ragged = 0.03 * noise(torch.stack([around * 9 + style.seed, fall * 0], -1), 1, 3)[:, 0]
    margin = (1 - fall) * (top - end) + ragged - 0.02
    strand = torch.stack([around * 14, fall * 2], dim=-1)
    return _grid(vertices, strand, margin, rows, columns, keep_above=-1.0, free=1.0)


def _grid(
    vertices: Tensor, strand: Tensor, margin: Tensor, rows: int, columns: int, keep_above: float, free: float
) -> HairMesh:
    """Two triangles for each cell of a grid of points, seen from outside; cells far outside the hairline left out."""
    index = torch.arange((rows + 1) * (columns + 1)).view(rows + 1, columns + 1)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = torch.cat([torch.stack([a, d, c], -1), torch.stack([a, c, b], -1)])
    faces = faces[(margin[faces] > keep_above).any(1)]
    grid = vertices.view(rows + 1, columns + 1, 3)
    along = torch.cat([grid[1:] - grid[:-1], (grid[-1] - grid[-2])[None]]).reshape(-1, 3)
    tangent = torch.nn.functional.normalize(along, dim=-1)
    return HairMesh(vertices, faces, strand, margin, tangent, torch.full_like(margin, free))
