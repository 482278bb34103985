"""The reconstructor of Portrait4D (Deng et al., CVPR 2024), Portrait4D-static and Portrait4D-v2 (ECCV 2024).

A photo becomes a head in a neutral pose; driving motion animates it to tri-planes; a parametric head tells where the
turned neck takes the points of space; volume rendering and super-resolution make the picture. What depends on the
photo alone is a :class:`SourceFeatures` and computed once, what depends on the driving frame is computed for each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.neck_field import NeckField
from portraitzoo.layers.super_resolution import SuperResolution
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.encoders import (
    BackgroundNetwork,
    DetailEncoder,
    GlobalEncoder,
    with_coordinates,
)
from portraitzoo.methods.portrait4d.motion import MotionTransformer, Scale
from portraitzoo.methods.portrait4d.planes import PlaneGenerator
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.triplane import CYCLIC_AXES, TriplaneDecoder, triplane_features
from portraitzoo.rendering.volume import (
    EVEN,
    RAY_CHUNK,
    DepthRange,
    RaySampling,
    RenderedRays,
    bounded_depth,
    render_rays,
)


@dataclass(frozen=True)
class SourceFeatures:
    """What depends on the photo alone.

    Attributes:
        tokens: of the neutral face.
        details: what fine details contribute to the tri-planes.
        background: features of the background in [0, 1].
    """

    tokens: Float[Tensor, "batch tokens width"]
    details: Float[Tensor, "batch wide half_height half_width"]
    background: Float[Tensor, "batch channels height width"]

    def __getitem__(self, index: slice | Tensor) -> SourceFeatures:
        """Part of the batch."""
        return SourceFeatures(*(getattr(self, item.name)[index] for item in fields(self)))

    @classmethod
    def cat(cls, parts: list[SourceFeatures]) -> SourceFeatures:
        """Join features along the batch."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))


@dataclass(frozen=True)
class Portrait4DOutput:
    """Rendered frames. Images are about [-1, 1] and not clamped.

    Attributes:
        image: finished frames.
        image_raw: frames before super-resolution.
        foreground: the same without background, which is black.
        background: the background alone.
        features: rendered features with background, in about [-1, 1]; the first three channels are ``image_raw``.
        foreground_features: those without background.
        background_features: those of the background.
        depth: expected distance along each ray, world units.
        opacity: in [0, 1], light stopped within the volume.
        rays: the samples behind the pixels.
    """

    image: Float[Tensor, "batch 3 image_resolution image_resolution"]
    features: Float[Tensor, "batch channels resolution resolution"]
    foreground_features: Float[Tensor, "batch channels resolution resolution"]
    background_features: Float[Tensor, "batch channels resolution resolution"]
    depth: Float[Tensor, "batch 1 resolution resolution"]
    opacity: Float[Tensor, "batch 1 resolution resolution"]
    rays: RenderedRays

    @property
    def image_raw(self) -> Float[Tensor, "batch 3 resolution resolution"]:
        """Frames before super-resolution."""
        return self.features[:, :3]

    @property
    def foreground(self) -> Float[Tensor, "batch 3 resolution resolution"]:
        """Frames before super-resolution without background, which is black."""
        return self.foreground_features[:, :3]

    @property
    def background(self) -> Float[Tensor, "batch 3 resolution resolution"]:
        """The background alone."""
        return self.background_features[:, :3]

    @classmethod
    def cat(cls, parts: list[Portrait4DOutput]) -> Portrait4DOutput:
        """Join outputs along the batch."""
        names = [item.name for item in fields(cls) if item.name != "rays"]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(**joined, rays=RenderedRays.cat([part.rays for part in parts], dim=0))


class Reconstructor(nn.Module):
    """From a photo, motions, a parametric head and cameras to frames.

    On a CPU without gradients frames are computed one by one, so that a frame is the same, bit for bit, whatever the
    batch it is in. A GPU gets whole batches.

    Args:
        config: sizes.
    """

    w_avg: Float[Tensor, " w_dim"]

    def __init__(self, config: Portrait4DConfig) -> None:
        super().__init__()
        self.config = config
        self.global_encoder = GlobalEncoder(
            config.global_stem,
            config.global_widths,
            config.global_depths,
            config.global_channels,
            config.atrous_rates,
        )
        self.detail_encoder = DetailEncoder(config.detail_channels)
        self.transformer = MotionTransformer(
            config.global_channels,
            motion_dim=config.motion_dim,
            motion_width=config.motion_width,
            motion_layers=config.motion_layers,
            motion_tokens=config.motion_tokens,
            width=config.canonical_width,
            heads=config.canonical_heads,
            mlp_ratio=config.canonical_mlp_ratio,
            neutral_blocks=config.neutral_blocks,
            motion_blocks=config.motion_blocks,
            out_channels=config.canonical_channels,
        )
        self.plane_generator = PlaneGenerator(
            config.canonical_channels[-1],
            config.detail_channels[-1],
            in_widths=config.plane_inputs,
            width=config.plane_width,
            heads=config.plane_heads,
            mlp_ratio=config.plane_mlp_ratio,
            reduction=config.plane_reduction,
            blocks=config.plane_blocks,
            out_widths=config.plane_outputs,
            plane_channels=config.plane_channels,
        )
        self.background = BackgroundNetwork(config.background_widths, config.plane_channels)
        self.decoder = TriplaneDecoder(config.plane_channels, config.decoder_width, config.plane_channels)
        self.super_resolution = SuperResolution(
            config.plane_channels,
            config.w_dim,
            input_resolution=config.super_resolution_input,
            channels=config.super_resolution_channels,
        )
        self.head = FlameHead(config.head)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def encode(
        self,
        image: Float[Tensor, "batch 3 height width"],
        motion_source: Float[Tensor, "batch motion_dim"],
        scale: Scale | None = None,
    ) -> SourceFeatures:
        """What depends on the photo alone.

        Args:
            image: photos in [-1, 1], aligned.
            motion_source: their motion embeddings.
            scale: of what motions contribute; None takes 0 for a static network and else 1.
        """
        scale = self._scale(scale)
        if _as_batch(image):
            return self._encode(image, motion_source, scale)
        rows = [slice(row, row + 1) for row in range(len(image))]
        parts = [self._encode(image[row], motion_source[row], _row(scale, row)) for row in rows]
        return parts[0] if len(parts) == 1 else SourceFeatures.cat(parts)

    def _encode(self, image: Tensor, motion_source: Tensor, scale: Scale) -> SourceFeatures:
        image = with_coordinates(image)
        features = self.global_encoder(image)
        return SourceFeatures(
            tokens=self.transformer.neutral(features, motion_source, scale),
            details=self.plane_generator.prepare(self.detail_encoder(image)),
            background=self.background(image).sigmoid(),
        )

    def planes(
        self,
        source: SourceFeatures,
        motion_drive: Float[Tensor, "batch motion_dim"],
        scale: Scale | None = None,
    ) -> Float[Tensor, "batch 3 channels size size"]:
        """Tri-planes of each frame, in the pose of a straight neck.

        Args:
            source: features of the photo, of one photo for all frames or of one for each.
            motion_drive: motion embeddings of the driving frames.
            scale: as in :meth:`encode`.
        """
        scale = self._scale(scale)
        frames = [slice(0, len(motion_drive))]
        if not _as_batch(motion_drive):
            frames = [slice(row, row + 1) for row in range(len(motion_drive))]
        shared = len(source.tokens) == 1
        parts = []
        for rows in frames:
            motion = motion_drive[rows].clone()  # where a row lies in memory decides how products are rounded
            tokens, details = (
                part.expand(len(motion), *part.shape[1:]) if shared else part[rows]
                for part in (source.tokens, source.details)
            )
            canonical = self.transformer.animate(tokens, motion, _row(scale, rows))
            parts.append(self.plane_generator(canonical, details))
        planes = parts[0] if len(parts) == 1 else torch.cat(parts)
        return planes.unflatten(1, (3, self.config.plane_channels))

    def neck_field(self, parameters: FlameParameters) -> NeckField | None:
        """How space around these heads moves to that of straight necks; None if all necks are straight."""
        if not parameters.pose[:, :3].any():
            return None
        return NeckField.of(self.head, parameters, self.config.box_warp)

    def features(
        self,
        points: Float[Tensor, "batch points 3"],
        planes: Float[Tensor, "batch 3 channels size size"],
        field: NeckField | None = None,
        box_scale: float | Float[Tensor, "batch 1 1"] = 1.0,
    ) -> Float[Tensor, "batch points channels"]:
        """Mean tri-plane feature of world points.

        Args:
            points: world coordinates.
            planes: from :meth:`planes`.
            field: from :meth:`neck_field`; None for straight necks.
            box_scale: how much larger than configured the cube is that planes cover.
        """
        straight = points if field is None else field(points)
        # Places need float32 whatever the weights are: bf16 tells only half of the pixels apart.
        return triplane_features(planes.to(points.dtype), straight / box_scale, self.config.box_warp, CYCLIC_AXES)

    def field(
        self,
        points: Float[Tensor, "batch points 3"],
        planes: Float[Tensor, "batch 3 channels size size"],
        field: NeckField | None = None,
        box_scale: float | Float[Tensor, "batch 1 1"] = 1.0,
    ) -> tuple[Float[Tensor, "batch points 1"], Float[Tensor, "batch points channels"]]:
        """Raw density (before softplus) and colour features, about [0, 1], at world points; see :meth:`features`."""
        density, color = self.decoder(self.features(points, planes, field, box_scale).to(self.w_avg.dtype))
        return density.to(points.dtype), color.to(points.dtype)

    def render(
        self,
        planes: Float[Tensor, "batch 3 channels size size"],
        source: SourceFeatures,
        camera: Camera,
        field: NeckField | None = None,
        *,
        box_scale: float | Float[Tensor, "batch 1 1"] = 1.0,
        render_resolution: int | None = None,
        sampling: RaySampling = EVEN,
    ) -> Portrait4DOutput:
        """Volume rendering in front of the background, and super-resolution.

        Args:
            planes: from :meth:`planes`.
            source: features of the photo, of one photo for all frames or of one for each.
            camera: cameras of batch shape [batch].
            field: from :meth:`neck_field`; None for straight necks.
            box_scale: how much larger than configured the cube of the planes is.
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            sampling: random numbers of the ray sampler, for ``render_resolution**2`` rays in row-major order.

        Returns:
            Frames; where nothing is seen, depth is the largest one sampled in this batch.
        """
        resolution = render_resolution or self.config.render_resolution
        background = source.background.expand(len(planes), -1, -1, -1)
        if _as_batch(planes):
            output = self._render(planes, background, camera, field, box_scale, resolution, sampling)
        else:
            # A frame must not even see the strides of its batch, nor where in memory its camera is: they would choose
            # other kernels, which round otherwise.
            parts = []
            for row in (slice(row, row + 1) for row in range(len(planes))):
                own = None if field is None else field[row]
                eye = Camera(camera.cam2world[row].clone(), camera.intrinsics[row].clone())
                frame = (planes[row], background[row], eye, own, _row(box_scale, row))
                parts.append(self._render(*frame, resolution, sampling[row, :], chunk=RAY_CHUNK))
            output = Portrait4DOutput.cat(parts)
        bounded = bounded_depth(output.rays.depth, output.rays.depths)
        return replace(output, depth=bounded.mT.unflatten(2, (resolution, resolution)))

    def _render(
        self,
        planes: Tensor,
        background: Tensor,
        camera: Camera,
        field: NeckField | None,
        box_scale: float | Tensor,
        resolution: int,
        sampling: RaySampling,
        chunk: int | None = None,
    ) -> Portrait4DOutput:
        """Frames whose depth is not yet bounded."""
        rendered = render_rays(
            lambda points: self.field(points, planes, field, box_scale),
            cast_rays(camera, resolution),
            DepthRange.around_origin(
                camera, self.config.box_warp * box_scale, self.config.depth_samples, self.config.importance_samples
            ),
            sampling,
            chunk=chunk,
        )
        size = (resolution, resolution)
        foreground = rendered.color.mT.unflatten(2, size).contiguous()
        opacity = rendered.opacity.mT.unflatten(2, size)
        behind = F.interpolate(background, size, mode="bilinear", align_corners=False)
        features = (foreground + (1 - opacity) * behind) * 2 - 1
        styles = self.w_avg.expand(len(planes), -1)
        return Portrait4DOutput(
            image=self.super_resolution(features[:, :3].to(styles.dtype), features.to(styles.dtype), styles),
            features=features,
            foreground_features=foreground * 2 - 1,
            background_features=behind * 2 - 1,
            depth=rendered.depth.mT.unflatten(2, size),
            opacity=opacity,
            rays=rendered,
        )

    def _scale(self, scale: Scale | None) -> Scale:
        if scale is None:
            return 0.0 if self.config.static else 1.0
        return scale


def _as_batch(frames: Tensor) -> bool:
    return torch.is_grad_enabled() or frames.device.type != "cpu"


def _row(value: Scale, rows: slice) -> Scale:
    """What belongs to some frames, of a number for all or of one number for each."""
    return value[rows] if isinstance(value, Tensor) else value
