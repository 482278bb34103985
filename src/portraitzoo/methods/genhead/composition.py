"""Density and colour around a posed head, put together from its parts (Portrait4D, section 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.methods.genhead.deformer import PosedHead
from portraitzoo.rendering.triplane import CYCLIC_AXES, TriplaneDecoder, triplane_features

PartPlanes = tuple[Float[Tensor, "batch 3 channels size size"], Float[Tensor, "batch 3 channels size size"]]
"""Tri-planes of eyes and mouth, and of the rest of the head, both over the canonical space."""


class CanonicalField:
    """The two fields in canonical space.

    Args:
        planes: of one head.
        decoder: from plane features to raw density and colour.
        box_warp: side of the cube that the planes cover.
    """

    def __init__(self, planes: PartPlanes, decoder: TriplaneDecoder, box_warp: float) -> None:
        self.planes, self.decoder, self.box_warp = planes, decoder, box_warp

    def inner(self, points: Float[Tensor, "points 3"]) -> tuple[Float[Tensor, " points"], Float[Tensor, "points c"]]:
        """Raw density and colour of eyes and mouth."""
        return self._decoded(0, points)

    def outer(self, points: Float[Tensor, "points 3"]) -> tuple[Float[Tensor, " points"], Float[Tensor, "points c"]]:
        """Raw density and colour of the rest."""
        return self._decoded(1, points)

    def around(
        self, head: PosedHead, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points channels"]]:
        """Raw density and colour at world points around a posed head, whoever looks at it.

        Within the boxes of the eyeballs the denser of the inner and the outer field counts, elsewhere the outer one.
        What is inside the mouth shows only from where a picture has it (see :class:`PartField`) and is left out.

        Args:
            head: the pose.
            points: world coordinates.
        """
        straight = head.straighten(points)
        density, color = self.outer(head.face.move(straight)[0])
        where = head.in_eye_boxes(straight).nonzero()[:, 0]
        if len(where):
            inner, inner_color = self.inner(head.eyes.move(straight[where])[0])
            denser = inner > density[where]
            color = color.index_put((where,), torch.where(denser[:, None], inner_color, color[where]))
            density = density.index_put((where,), torch.maximum(inner, density[where]))
        return density, color

    def _decoded(self, which: int, points: Tensor) -> tuple[Tensor, Tensor]:
        features = triplane_features(self.planes[which], points[None], self.box_warp, CYCLIC_AXES)
        density, color = self.decoder(features)
        return density[0, :, 0], color[0]


class PartField:
    """The field along some rays of a posed head.

    With e the share of eyes (that of the ray, within the boxes around the eyeballs) and m that of the mouth, density
    and colour are those of eyes or mouth times (e + m) and those of the rest times (1 - e - m); before the densities'
    softplus, and e + m may exceed 1. The density of the inner field counts only within the boxes and on the rays of
    the mouth. Inner parts are evaluated only where they show.

    Args:
        canonical: the fields.
        head: the pose.
        eyes: mask of the eyes at the rays.
        mouth: mask of the mouth.
        blended: on rays of the mouth add up the densities instead and mix colours by their softmax (which the authors
            do beyond 64 pixels).

    Attributes:
        face_in_eyes: raw density of the rest within the boxes (0 outside), of each call.
        face_in_mouth: the same times m.
    """

    def __init__(
        self,
        canonical: CanonicalField,
        head: PosedHead,
        eyes: Float[Tensor, " rays"],
        mouth: Float[Tensor, " rays"],
        *,
        blended: bool = False,
    ) -> None:
        self.canonical, self.head, self.eyes, self.mouth, self.blended = canonical, head, eyes, mouth, blended
        self.face_in_eyes: list[Tensor] = []
        self.face_in_mouth: list[Tensor] = []

    def __call__(
        self, points: Float[Tensor, "1 rays*samples 3"]
    ) -> tuple[Float[Tensor, "1 rays*samples 1"], Float[Tensor, "1 rays*samples channels"]]:
        """Raw density and colour of world points, the samples of a ray one after the other."""
        samples = points.shape[1] // len(self.eyes)
        eyes, mouth = (mask.repeat_interleave(samples) for mask in (self.eyes, self.mouth))
        straight = self.head.straighten(points[0])
        boxed = self.head.in_eye_boxes(straight).to(eyes)
        share = eyes * boxed + mouth
        density, color = self.canonical.outer(self.head.face.move(straight)[0])
        self.face_in_eyes.append(density * boxed)
        self.face_in_mouth.append(density * mouth)

        where = ((eyes * boxed > 0) | (mouth > 0)).nonzero()[:, 0]
        if len(where):
            inner_density, inner_color = self._inner(straight[where], mouth[where] > 0)
            inner_density = inner_density * (boxed + mouth)[where]
            inner_share = share[where]
            mixed_density = torch.lerp(density[where], inner_density, inner_share)
            mixed_color = torch.lerp(color[where], inner_color, inner_share[:, None])
            if self.blended:
                both = torch.stack([inner_density, density[where]], dim=-1)
                weight = both.softmax(-1)[:, :1]
                on_mouth = mouth[where] > 0
                mixed_density = torch.where(on_mouth, both.sum(-1), mixed_density)
                blend = torch.lerp(color[where], inner_color, weight)
                mixed_color = torch.where(on_mouth[:, None], blend, mixed_color)
            density = density.index_put((where,), mixed_density)
            color = color.index_put((where,), mixed_color)
        return density[None, :, None], color[None]

    def _inner(self, straight: Tensor, on_mouth: Tensor) -> tuple[Tensor, Tensor]:
        """Inner field: of the mouth on its rays, of the eyes elsewhere."""
        places = torch.empty_like(straight)
        for part, rows in ((self.head.mouth, on_mouth), (self.head.eyes, ~on_mouth)):
            places[rows] = part.move(straight[rows])[0]
        return self.canonical.inner(places)
