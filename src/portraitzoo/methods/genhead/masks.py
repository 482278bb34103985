"""Where eyes, mouth and head are in the picture, drawn from the parametric head (Portrait4D, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.head_maps import coarse_fragments, part_mask
from portraitzoo.layers.resampling import resize
from portraitzoo.rendering.cameras import Camera
from portraitzoo.training.blur import blur

OPENING = 7
EYES_BLUR, MOUTH_BLUR = 1.0, 2.0


@dataclass(frozen=True)
class PartMasks:
    """Shares of the pixels, in [0, 1].

    Attributes:
        eyes: visible eyeballs, at the size of the volume rendering.
        mouth: inside of the mouth, and thin strips of the silhouette.
        head: all of the head.
        eyes_full, mouth_full: eyes and mouth at the size of the finished image, before any resizing: 0 or 1.
    """

    eyes: Float[Tensor, "batch 1 resolution resolution"]
    mouth: Float[Tensor, "batch 1 resolution resolution"]
    head: Float[Tensor, "batch 1 resolution resolution"]
    eyes_full: Float[Tensor, "batch 1 image_resolution image_resolution"]
    mouth_full: Float[Tensor, "batch 1 image_resolution image_resolution"]

    def soft(self) -> Float[Tensor, "batch 1 image_resolution image_resolution"]:
        """Eyes and mouth together with soft edges, up to 2 where they overlap."""
        mouth = blur(opening(self.mouth_full), MOUTH_BLUR) + resize(self.mouth, self.mouth_full.shape[-1])
        return mouth.clamp(max=1) + blur(self.eyes_full, EYES_BLUR)


@torch.no_grad()
def part_masks(
    head: FlameHead,
    vertices: Float[Tensor, "batch vertices 3"],
    camera: Camera,
    *,
    image_resolution: int,
    resolution: int,
) -> PartMasks:
    """Masks of posed heads; no gradients.

    The mouth is what the whole head, drawn from both sides of its faces, covers and the head without the inside of its
    mouth, drawn from outside, does not.

    Args:
        head: the parametric head.
        vertices: of the poses, world.
        camera: a batch of as many.
        image_resolution: side of the pictures that are drawn.
        resolution: side of the masks for volume rendering.
    """
    view = (vertices, camera, image_resolution)
    eyes = part_mask(head, *view, "eyes") & ~part_mask(head, *view, "face")
    whole = coarse_fragments(head, *view, cull_backfaces=False).covered
    mouth = whole & ~part_mask(head, *view, "no_inner_mouth")

    def shares(mask: Bool[Tensor, "batch height width"]) -> Float[Tensor, "batch 1 height width"]:
        return mask[:, None].float()

    small = [resize(shares(mask), resolution) for mask in (eyes, mouth, whole)]
    return PartMasks(small[0], small[1], small[2], shares(eyes), shares(mouth))


def opening(mask: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Erosion then dilation by a square of 7 pixels: what is thinner vanishes."""
    eroded = 1 - F.max_pool2d(1 - mask, OPENING, 1, OPENING // 2)
    return F.max_pool2d(eroded, OPENING, 1, OPENING // 2)
