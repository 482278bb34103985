"""Training data out of a frozen GenHead: a photo, a driving frame and a target of one head (CVPR 2024, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.head_maps import landmarks_in_image
from portraitzoo.methods.genhead.network import (  # the one family imported here: it makes the data
    Generator,
    GenHeadOutput,
    resize_plainly,
)
from portraitzoo.methods.portrait4d.objective import Synthesised, Target, pixels_up, y_down
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.triplane import CYCLIC_AXES, triplane_features
from portraitzoo.rendering.volume import DepthRange, coarse_depths

TRUNCATION_PSI, TRUNCATION_CUTOFF = 0.95, 14
RESOLUTION = 64
"""Side of the volume rendering of targets; the networks do not depend on it."""
POINTS = 4000


@dataclass(frozen=True)
class Pictured:
    """A synthesised picture.

    Attributes:
        image: in [-1, 1] but for what the generator exceeds it by.
        landmarks: pixels, y down, as motion encoders want them in training.
    """

    image: Float[Tensor, "batch 3 height width"]
    landmarks: Float[Tensor, "batch 70 2"]


class Synthesiser:
    """Pictures of one head in several poses and views, and all that is known about the last of them.

    Args:
        generator: a frozen GenHead.
        truncation_psi: of its style vectors.
        resolution: side of its volume rendering.
    """

    def __init__(
        self, generator: Generator, truncation_psi: float = TRUNCATION_PSI, resolution: int = RESOLUTION
    ) -> None:
        self.generator, self.truncation_psi, self.resolution = generator, truncation_psi, resolution

    @torch.no_grad()
    def pictures(
        self,
        z: Float[Tensor, "batch z_dim"],
        heads: list[FlameParameters],
        cameras: list[Camera],
        places: Int[Tensor, "batch points 2"],
    ) -> tuple[list[Pictured], Target]:
        """Pictures of the heads and, for the last one, the target.

        Args:
            z: latent codes of head and background.
            heads: of each picture, their necks straight; all of one shape.
            cameras: of each picture; the first is what the style vectors are told.
            places: random numbers, at least 0, that choose ray and depth of the points whose features are compared.
        """
        generator = self.generator
        ws = generator.mapping(
            z,
            cameras[0],
            heads[0].shape,
            truncation_psi=self.truncation_psi,
            truncation_cutoff=TRUNCATION_CUTOFF,
        )
        planes, backdrop = generator.planes(ws), generator.backdrop(z)
        pictures = []
        for head, camera in zip(heads, cameras, strict=True):
            posed = generator.pose(head)
            output = generator.render(planes, backdrop, posed, camera, render_resolution=self.resolution)
            vertices = torch.stack([one.vertices for one in posed])
            size = output.image.shape[-1]
            up = pixels_up(landmarks_in_image(generator.head, vertices, camera), size)
            pictures.append(Pictured(output.image, y_down(up, size)))
        points = self._points(output, camera, places)
        features = [
            triplane_features(
                planes[1][row : row + 1],
                one.face.move(one.straighten(points[row]))[0][None],
                generator.config.box_warp,
                CYCLIC_AXES,
            )
            for row, one in enumerate(posed)
        ]
        known = Synthesised(
            mask=output.segmentation,
            depth=output.depth,
            features=output.features,
            background_features=resize_plainly(backdrop, self.resolution) * 2 - 1,
            points=points,
            point_features=torch.cat(features),
        )
        return pictures, Target(output.image, output.segmentation, known)

    def _points(self, output: GenHeadOutput, camera: Camera, places: Tensor) -> Float[Tensor, "batch points 3"]:
        """Coarse samples of random rays, none of them through eyes or mouth."""
        config = self.generator.config
        rays = cast_rays(camera, self.resolution)
        span = DepthRange.around_origin(camera, config.box_warp, config.samples, config.samples)
        depths = coarse_depths(span, rays.origins)
        covered = (output.masks.eyes + output.masks.mouth).flatten(1) > 0
        found = []
        for row, drawn in enumerate(places):
            free = (~covered[row]).nonzero()[:, 0]
            ray, sample = free[drawn[:, 0] % len(free)], drawn[:, 1] % config.samples
            depth = depths[row, ray, sample][:, None]
            found.append(rays.origins[row, ray] + depth * rays.directions[row, ray])
        return torch.stack(found)
