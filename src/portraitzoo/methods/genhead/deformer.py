"""From the space around a posed head to the space of the canonical one (Portrait4D, section 3.2).

First the turn of the neck is taken out (:class:`~portraitzoo.faces.neck_field.NeckField`). Then a point moves with the
neighbourhood of its nearest vertex: for the eyes that of the eyeballs, for the face that of the head, for the mouth
that of the lips of a head without expression, because teeth follow the jaw alone. Shape, expression, jaw and gaze are
all undone: the canonical head is the mean one with its jaw open by 0.3. Nothing here has gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.head_maps import with_eyelids
from portraitzoo.faces.neck_field import NeckField
from portraitzoo.rendering.closest import nearest_vertices

FIELD_SIDE = 1.3
"""Side of the cube in which necks are straightened, world units."""
EYE_BOX = 1.2
"""How much larger than an eyeball its box is."""
WEIGHT_EPSILON = 1e-10
_FAR = 1000.0  # where the vertices that pad the neighbourhoods are


@dataclass(frozen=True)
class Surroundings:
    """Space that follows a part of a head.

    Attributes:
        vertices: of the part, among which the nearest is looked for.
        rings: position and move of each one's neighbours (the vertex itself first).
    """

    vertices: Float[Tensor, "vertices 3"]
    rings: Float[Tensor, "vertices 10 6"]

    @classmethod
    def of(
        cls, part: Int[Tensor, " vertices"], rings: Int[Tensor, "all 10"], posed: Tensor, canonical: Tensor
    ) -> Surroundings:
        """Space around some vertices.

        Args:
            part: which vertices.
            rings: neighbours of all vertices, padded with their number.
            posed: where all vertices are.
            canonical: where they are to go.
        """
        known = torch.cat([posed, canonical - posed], dim=1)
        nowhere = known.new_tensor([[_FAR] * 3 + [0.0] * 3])
        return cls(posed[part], torch.cat([known, nowhere])[rings[part]])

    def move(self, points: Float[Tensor, "points 3"]) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
        """Where points go, and their distance from the nearest vertex.

        A point moves by the mean of its nearest vertex's neighbours, weighted by 1 / (squared distance + 1e-10).
        """
        squared, nearest = nearest_vertices(points, self.vertices)
        position, offset = self.rings[nearest[:, 0]].split(3, dim=-1)
        weights = 1 / ((points[:, None] - position).square().sum(-1) + WEIGHT_EPSILON)
        weights = weights / weights.sum(-1, keepdim=True)
        return points + (weights[..., None] * offset).sum(1), (squared[:, 0] + 1e-12).sqrt()


@dataclass(frozen=True)
class PosedHead:
    """One head in its pose.

    Attributes:
        vertices: in the world.
        neck: field that straightens its neck.
        eyes, face, mouth: what moves with each part once the neck is straight.
        eye_boxes: least and greatest corner of the box around each eyeball, likewise.
    """

    vertices: Float[Tensor, "vertices 3"]
    neck: NeckField
    eyes: Surroundings
    face: Surroundings
    mouth: Surroundings
    eye_boxes: Float[Tensor, "2 2 3"]

    def straighten(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """World points where they are when the neck is straight."""
        return self.neck(points[None])[0]

    def in_eye_boxes(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, " points"]:
        """Which points (of a head with a straight neck) are in the box of either eyeball."""
        inside = (points[:, None] >= self.eye_boxes[:, 0]) & (points[:, None] <= self.eye_boxes[:, 1])
        return inside.all(-1).any(-1)


@torch.no_grad()
def pose_heads(
    head: FlameHead, parameters: FlameParameters, *, eyelids: Float[Tensor, "batch 100"] | None = None
) -> list[PosedHead]:
    """Heads in their poses.

    Args:
        head: the parametric head.
        parameters: of each.
        eyelids: a second expression, which the eyelids follow instead (a blink).
    """
    neck = NeckField.of(head, parameters, FIELD_SIDE)
    straight = parameters.without_neck()
    flat = torch.zeros_like(parameters.expression)
    upright = posed_vertices(head, straight, eyelids=eyelids)
    without_expression = head.flame(straight.shape, flat, straight.pose)
    vertices = posed_vertices(head, parameters, eyelids=eyelids)
    found = []
    for index in range(len(parameters)):
        target, teeth = upright[index], without_expression[index]
        boxes = torch.stack([_box(target[part]) for part in (head.left_eyeball, head.right_eyeball)])
        found.append(
            PosedHead(
                vertices=vertices[index],
                neck=neck[index : index + 1],
                eyes=Surroundings.of(head.eyes, head.rings, target, head.canonical),
                face=Surroundings.of(head.head, head.rings, target, head.canonical),
                mouth=Surroundings.of(head.lips, head.rings, teeth, head.canonical),
                eye_boxes=boxes,
            )
        )
    return found


def posed_vertices(
    head: FlameHead, parameters: FlameParameters, *, eyelids: Float[Tensor, "batch 100"] | None = None
) -> Float[Tensor, "batch vertices 3"]:
    """Vertices of heads; those of the eyelids with the expression ``eyelids``, if there is one."""
    vertices = head.flame(*parameters)
    if eyelids is None:
        return vertices
    return with_eyelids(head, vertices, head.flame(*replace(parameters, expression=eyelids)))


def _box(vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, "2 3"]:
    half = (vertices.amax(0) - vertices.amin(0)) * (EYE_BOX / 2)
    centre = vertices.mean(0)
    return torch.stack([centre - half, centre + half])
