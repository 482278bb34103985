"""Procedural surfaces: the colour of every point of a head, painted in the coordinates of the template.

A template point means the same place on every head and in every expression, so that iris, lip line, brow or freckle
stay where they are while the face moves, and have the sharpness of the picture instead of the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.faces.anny import Region
from portraitzoo.preprocess.studio.appearance import Appearance, Colour
from portraitzoo.preprocess.studio.noise import noise, smoothstep


class Label(IntEnum):
    """Classes of the segmentation."""

    BACKGROUND = 0
    SKIN = 1
    LIPS = 2
    EYES = 3
    MOUTH = 4
    BROWS = 5
    HAIR = 6
    CLOTHES = 7


@dataclass(frozen=True)
class Surface:
    """Material of a list of points.

    Attributes:
        albedo: linear RGB.
        gloss: strength of the highlight.
        sharpness: exponent of the highlight.
        label: class, see :class:`Label`.
    """

    albedo: Float[Tensor, "n 3"]
    gloss: Float[Tensor, " n"]
    sharpness: Float[Tensor, " n"]
    label: Int[Tensor, " n"]


# The brow of the template's left side: points (x, y) from its inner end to its tail, metres.
_BROW = torch.tensor([[0.0125, 0.7462], [0.021, 0.7488], [0.031, 0.7508], [0.041, 0.7500], [0.0505, 0.7452]])
_EYE = torch.tensor([0.03078, 0.72842, 0.12454])  # centre of the template's left eyeball, metres
_NOSE = torch.tensor([0.0, 0.691, 0.165])
_CHEEK = torch.tensor([0.044, 0.692, 0.13])


def paint(
    points: Float[Tensor, "n 3"],
    region: Int[Tensor, " n"],
    masks: dict[str, Float[Tensor, " n"]],
    look: Appearance,
) -> Surface:
    """Material of points of the head's mesh.

    Args:
        points: template coordinates, metres.
        region: :class:`Region` of the face on which each lies.
        masks: soft regions of the head model at the points.
        look: the person's colours.
    """
    count = len(points)
    albedo = torch.zeros(count, 3)
    gloss, sharpness = torch.zeros(count), torch.full((count,), 16.0)
    label = torch.full((count,), int(Label.SKIN))
    groups = (
        ((Region.SKIN,), _skin),
        ((Region.LEFT_EYE, Region.RIGHT_EYE), _eye),
        ((Region.UPPER_TEETH, Region.LOWER_TEETH), _teeth),
        ((Region.TONGUE,), _tongue),
        ((Region.MOUTH_CAVITY,), _cavity),
        ((Region.LASHES,), _lashes),
    )
    for regions, painter in groups:
        chosen = torch.isin(region, torch.tensor([int(r) for r in regions])).nonzero()[:, 0]
        if len(chosen):
            part = painter(points[chosen], {name: mask[chosen] for name, mask in masks.items()}, look)
            albedo[chosen], gloss[chosen] = part.albedo, part.gloss
            sharpness[chosen], label[chosen] = part.sharpness, part.label
    return Surface(albedo, gloss, sharpness, label)


def _skin(points: Tensor, masks: dict[str, Tensor], look: Appearance) -> Surface:
    shifted = points + look.texture_shift
    mirrored = torch.cat([points[:, :1].abs(), points[:, 1:]], dim=-1)
    coarse = noise(shifted * 40, 2)
    fine = noise(shifted * 420, 2, 2)
    pores = noise(shifted * 1500, 1, 4)
    base = _rgb(look.skin)
    albedo = base * (1 + 0.05 * coarse[:, :1] + 0.045 * fine[:, :1] + 0.05 * pores)
    front = smoothstep(0.06, 0.10, points[:, 2])

    red = 0.9 * _spot(mirrored, _CHEEK, 0.022) + 0.8 * _spot(mirrored, _NOSE, 0.013) + 0.9 * masks["ears"]
    red = look.blush * red * (0.8 + 0.4 * coarse[:, 1])
    albedo = albedo * (1 - red[:, None] * torch.tensor([0.02, 0.26, 0.22]))
    socket = _spot(mirrored, _EYE + torch.tensor([0.0, -0.009, 0.012]), 0.013)
    albedo = albedo * (1 - 0.22 * socket[:, None] * torch.tensor([0.8, 1.1, 0.9]))
    if look.freckles:
        spots = smoothstep(0.45, 0.7, noise(shifted * 700, 1, 5)[:, 0])
        where = _spot(mirrored, _CHEEK, 0.02) + _spot(mirrored, _NOSE, 0.016)
        albedo = albedo * (
            1 - look.freckles * 0.4 * (spots * where.clamp(0, 1))[:, None] * torch.tensor([0.5, 0.9, 1.2])
        )
    if look.beard:
        albedo = albedo * (1 - look.beard * 0.55 * (_beard(mirrored) * (0.75 + 0.35 * pores[:, 0]))[:, None])

    lips = smoothstep(0.25, 0.75, masks["lips"])
    creases = 1 + 0.10 * noise(torch.stack([points[:, 0] * 900, points[:, 1] * 120], -1), 1, 6)
    albedo = albedo + lips[:, None] * (_rgb(look.lips) * creases - albedo)
    lash_line = smoothstep(0.0165, 0.0145, (mirrored - _EYE).norm(dim=-1)) * smoothstep(0.5, 0.9, masks["eyelids"])
    albedo = albedo * (1 - 0.30 * lash_line[:, None])

    brow = _brow(mirrored, look, fine[:, 1]) * front
    albedo = albedo + brow[:, None] * (_rgb(look.brow) - albedo)

    clothed, weave = _clothes(points, look)
    cloth = _rgb(look.clothes) * (0.92 + 0.10 * weave[:, None])
    albedo = albedo + clothed[:, None] * (cloth - albedo)

    gloss = look.shine * (0.10 + 0.07 * _spot(mirrored, _NOSE, 0.02) + 0.05 * smoothstep(0.75, 0.79, points[:, 1]))
    gloss = (gloss * (1 - brow) + 0.16 * lips) * (1 - clothed)
    sharpness = 14 + 26 * lips
    label = torch.full((len(points),), int(Label.SKIN))
    label[lips > 0.5] = int(Label.LIPS)
    label[brow > 0.4] = int(Label.BROWS)
    label[clothed > 0.5] = int(Label.CLOTHES)
    return Surface(albedo, gloss, sharpness, label)


def _eye(points: Tensor, masks: dict[str, Tensor], look: Appearance) -> Surface:
    ray = torch.cat([points[:, :1].abs(), points[:, 1:]], dim=-1) - _EYE
    angle = torch.atan2(ray[:, :2].norm(dim=-1), ray[:, 2])
    turn = torch.atan2(ray[:, 1], ray[:, 0])
    fibres = noise(torch.stack([turn * 12, angle * 8 + look.texture_shift], -1), 1, 7)
    iris = _rgb(look.iris) * (1.25 + 0.5 * fibres) * (1 + 0.35 * smoothstep(0.2, 0.42, angle)[:, None])
    veins = torch.tensor([0.78, 0.72, 0.69]) * (
        1 - 0.10 * smoothstep(0.7, 1.3, angle)[:, None] * torch.tensor([0.3, 1, 1])
    )
    width = look.iris_angle
    limbus = smoothstep(width * 0.80, width * 0.97, angle)
    iris = iris * (1 - 0.75 * limbus[:, None])
    inside = smoothstep(width * 1.08, width * 0.94, angle)
    albedo = veins + inside[:, None] * (iris - veins)
    pupil = smoothstep(0.235, 0.185, angle)
    albedo = albedo * (1 - 0.985 * pupil[:, None])
    count = len(points)
    gloss = 0.35 + 1.1 * inside
    return Surface(albedo, gloss, torch.full((count,), 220.0), torch.full((count,), int(Label.EYES)))


def _teeth(points: Tensor, masks: dict[str, Tensor], look: Appearance) -> Surface:
    # Teeth stand along an arch of about 2.4 cm; gaps follow its angle.
    along = torch.atan2(points[:, 0], points[:, 2] - 0.118) * 5.0
    gap = smoothstep(0.80, 1.0, torch.cos(2 * torch.pi * along).abs())
    albedo = torch.tensor([0.80, 0.76, 0.67]) * (1 - 0.25 * gap[:, None])
    count = len(points)
    return Surface(
        albedo, torch.full((count,), 0.25), torch.full((count,), 40.0), torch.full((count,), int(Label.MOUTH))
    )


def _tongue(points: Tensor, masks: dict[str, Tensor], look: Appearance) -> Surface:
    count = len(points)
    albedo = torch.tensor([0.46, 0.17, 0.16]) * (1 + 0.1 * noise(points * 900, 1, 8))
    return Surface(
        albedo, torch.full((count,), 0.12), torch.full((count,), 20.0), torch.full((count,), int(Label.MOUTH))
    )


def _cavity(points: Tensor, masks: dict[str, Tensor], look: Appearance) -> Surface:
    count = len(points)
    albedo = torch.tensor([0.25, 0.06, 0.06]).expand(count, 3)
    return Surface(
        albedo, torch.full((count,), 0.05), torch.full((count,), 20.0), torch.full((count,), int(Label.MOUTH))
    )


def _lashes(points: Tensor, masks: dict[str, Tensor], look: Appearance) -> Surface:
    count = len(points)
    dark = _rgb(look.brow) * 0.5 + 0.12 * _rgb(look.skin)
    # The lower lashes are so sparse that skin shows between them.
    lower = 0.72 * smoothstep(0.001, -0.004, points[:, 1:2] - _EYE[1])
    albedo = dark + lower * (_rgb(look.skin) * 0.85 - dark)
    return Surface(albedo, torch.zeros(count), torch.full((count,), 16.0), torch.full((count,), int(Label.EYES)))


def _rgb(colour: Colour) -> Float[Tensor, " 3"]:
    return torch.tensor(colour)


def _spot(points: Tensor, centre: Tensor, radius: float) -> Tensor:
    """A soft round spot."""
    return torch.exp(-0.5 * ((points - centre) / radius).square().sum(-1))


def _brow(mirrored: Tensor, look: Appearance, grain: Tensor) -> Tensor:
    """Opacity of the brow: full near a curve, thinning out to both ends."""
    start, end = _BROW[:-1], _BROW[1:]
    direction = end - start
    offset = mirrored[:, None, :2] - start
    share = ((offset * direction).sum(-1) / direction.square().sum(-1)).clamp(0, 1)
    away = (offset - share[..., None] * direction).norm(dim=-1)
    distance, segment = away.min(dim=1)
    along = (segment + share.gather(1, segment[:, None])[:, 0]) / len(start)
    half_width = look.brow_width * 0.0042 * (0.55 + 1.3 * along * (1 - along) + 0.35 * (1 - along)) * (1 - 0.45 * along)
    strands = noise(torch.stack([mirrored[:, 0] * 1300 - mirrored[:, 1] * 700, mirrored[:, 1] * 300], -1), 1, 9)[:, 0]
    edge = smoothstep(1.5, 0.35, distance / half_width + 0.30 * strands)
    return look.brow_density * edge * (0.9 + 0.15 * grain).clamp(0, 1)


def _beard(mirrored: Tensor) -> Tensor:
    """Where a beard grows: jaw, chin and above the upper lip."""
    x, y, z = mirrored.unbind(-1)
    jaw = smoothstep(0.680, 0.662, y - 0.30 * x.clamp(min=0.02) + 0.006) * smoothstep(0.60, 0.63, y)
    jaw = jaw * smoothstep(0.02, 0.07, z)
    lip = torch.exp(-0.5 * (((y - 0.674) / 0.0035) ** 2 + (x / 0.016) ** 2)) * smoothstep(0.10, 0.13, z)
    return (jaw + lip).clamp(0, 1)


def _clothes(points: Tensor, look: Appearance) -> tuple[Tensor, Tensor]:
    """Opacity of the clothes below a round collar, and their weave."""
    x, y, z = points.unbind(-1)
    collar = 0.585 - 0.35 * look.neckline - 0.25 * (z - 0.02)
    collar = collar + 0.10 * (x.abs() - 0.05).clamp(min=0)
    weave = noise(points * 500 + look.texture_shift, 1, 10)[:, 0]
    return smoothstep(0.002, -0.002, y - collar), weave
