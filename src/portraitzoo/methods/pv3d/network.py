"""PV3D's generator (Xu et al., ICLR 2023, section 3): EG3D's tri-plane GAN with motion fused into its early layers.

A frame is an appearance code, a motion code, a time and a camera. Frames are independent of each other: time enters
through the motion fusers of the low-resolution blocks alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.layers.linear import FullyConnected
from portraitzoo.layers.mapping import MappingNetwork
from portraitzoo.layers.modulation import NoiseMode, SynthesisLayer, ToRGB
from portraitzoo.layers.super_resolution import ACTIVATION_LIMIT, SuperResolution
from portraitzoo.layers.synthesis import SynthesisNetwork
from portraitzoo.rendering.cameras import LABEL_SIZE, Camera
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.triplane import TriplaneDecoder, triplane_features
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
class PV3DConfig:
    """Sizes of the generator; the defaults are those of all three released checkpoints.

    Attributes:
        z_dim: width of the appearance and motion codes.
        w_dim: width of the style vectors.
        motion_dim: width of the motion fusers.
        image_resolution: side of the finished image, pixels.
        plane_resolution: side of the tri-planes.
        plane_channels: channels of each plane, and of the rendered feature image.
        channel_base: a block of resolution r has ``channel_base / r`` channels,
        channel_max: but not more than this.
        mapping_layers: layers of the mapping network.
        motion_resolutions: resolutions of the blocks with a motion fuser.
        decoder_width: hidden width of the decoder.
        super_resolution_input: side of the feature image that enters the super-resolution.
        super_resolution_channels: channels of its blocks, each of which doubles the size.
        depth_samples: coarse samples per ray.
        importance_samples: importance samples per ray.
        ray_start: depth of the first sample, world units.
        ray_end: depth of the last coarse sample.
        box_warp: side of the cube that the tri-planes cover.
        render_resolution: side of the volume-rendered image unless told otherwise; no weight depends on it.
    """

    z_dim: int = 512
    w_dim: int = 512
    motion_dim: int = 512
    image_resolution: int = 512
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 2
    motion_resolutions: tuple[int, ...] = (4, 8, 16, 32)
    decoder_width: int = 64
    super_resolution_input: int = 128
    super_resolution_channels: tuple[int, ...] = (256, 128)
    depth_samples: int = 48
    importance_samples: int = 48
    ray_start: float = 2.25
    ray_end: float = 3.3
    box_warp: float = 1.0
    render_resolution: int = 64

    def __post_init__(self) -> None:
        # A config read from JSON has lists.
        object.__setattr__(self, "motion_resolutions", tuple(self.motion_resolutions))
        object.__setattr__(self, "super_resolution_channels", tuple(self.super_resolution_channels))
        doublings = len(self.super_resolution_channels)
        if self.super_resolution_input * 2**doublings != self.image_resolution:
            raise ValueError(
                f"super-resolution doubles {self.super_resolution_input} pixels {doublings} times, "
                f"which does not give image_resolution {self.image_resolution}"
            )

    @property
    def plane_resolutions(self) -> list[int]:
        """Resolutions of the backbone's blocks: 4, 8, ..., ``plane_resolution``."""
        return [4 << level for level in range(self.plane_resolution.bit_length() - 2)]

    def channels(self, resolution: int) -> int:
        """Channels of the backbone's block of a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def depth_range(self) -> DepthRange:
        """Where rays are sampled."""
        return DepthRange(self.ray_start, self.ray_end, self.depth_samples, self.importance_samples)

    def widest_activation(self) -> int:
        """Numbers in the largest feature map of one frame."""
        planes = max(resolution**2 * self.channels(resolution) for resolution in self.plane_resolutions)
        sizes = [self.super_resolution_input << level for level in range(1, len(self.super_resolution_channels) + 1)]
        finest = max(size**2 * channels for size, channels in zip(sizes, self.super_resolution_channels, strict=True))
        return max(planes, finest)


@dataclass(frozen=True)
class PV3DOutput:
    """Rendered frames.

    Attributes:
        image: finished frames, about [-1, 1], not clamped.
        image_raw: frames before super-resolution, about [-1, 1].
        depth: expected distance along each ray, world units.
        position: expected world point of each ray.
        opacity: in [0, 1], light stopped within the volume.
        features: rendered features in about [-1, 1], the input of the super-resolution.
        rays: the samples behind the pixels.
    """

    image: Float[Tensor, "batch 3 image_resolution image_resolution"]
    image_raw: Float[Tensor, "batch 3 resolution resolution"]
    depth: Float[Tensor, "batch 1 resolution resolution"]
    position: Float[Tensor, "batch resolution resolution 3"]
    opacity: Float[Tensor, "batch resolution resolution 1"]
    features: Float[Tensor, "batch channels resolution resolution"]
    rays: RenderedRays

    @classmethod
    def cat(cls, parts: list[PV3DOutput]) -> PV3DOutput:
        """Join outputs along the batch."""
        names = ("image", "image_raw", "depth", "position", "opacity", "features")
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return cls(**joined, rays=RenderedRays.cat([part.rays for part in parts], dim=0))


class MotionFuser(nn.Module):
    """Adds motion to features: a convolution modulated by the motion code and the time (PV3D, section 3.2).

    The style is an MLP of ``z_motion * t``, so that at t = 0 all motion codes give the same. Unlike z, the motion code
    is not normalised.

    Args:
        channels: channels of the features.
        z_dim: width of the motion code.
        width: width of the motion style.
        resolution: side of the features.
    """

    def __init__(self, channels: int, z_dim: int, width: int, resolution: int) -> None:
        super().__init__()
        self.affine = FullyConnected(z_dim, width, activation="lrelu")
        self.mlp = nn.Sequential(FullyConnected(width, width, activation="lrelu"), FullyConnected(width, width))
        self.conv = SynthesisLayer(channels, channels, width, noise_resolution=resolution)

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        z_motion: Float[Tensor, "batch z_dim"],
        t: Float[Tensor, " batch"],
        noise: NoiseMode = "const",
    ) -> Float[Tensor, "batch channels height width"]:
        """Features with motion."""
        return x + self.conv(x, self.mlp(self.affine(z_motion * t[:, None])), noise)


class TriplaneBackbone(SynthesisNetwork):
    """StyleGAN2 synthesis of the tri-planes, with motion fusers in its low-resolution blocks (PV3D, figure 2).

    Args:
        config: sizes.
    """

    def __init__(self, config: PV3DConfig) -> None:
        channels = {resolution: config.channels(resolution) for resolution in config.plane_resolutions}
        super().__init__(config.w_dim, 3 * config.plane_channels, channels)
        self.fusers = nn.ModuleDict(
            {
                f"b{resolution}": MotionFuser(count, config.z_dim, config.motion_dim, resolution)
                for resolution, count in channels.items()
                if resolution in config.motion_resolutions
            }
        )

    def forward(  # type: ignore[override]
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        z_motion: Float[Tensor, "batch z_dim"],
        t: Float[Tensor, " batch"],
        noise: NoiseMode = "const",
    ) -> Float[Tensor, "batch 3*channels resolution resolution"]:
        """Tri-planes of each frame, one after the other along the channels."""
        fusers = {name: partial(fuser, z_motion=z_motion, t=t, noise=noise) for name, fuser in self.fusers.items()}
        return super().forward(ws, noise, fusers)


class Generator(nn.Module):
    """From codes, times and cameras to frames.

    On a CPU without gradients frames are computed one by one, so that a frame is the same, bit for bit, whatever the
    batch it is in; larger batches bring no speed there. A GPU gets whole batches, which it takes to keep it busy.

    Args:
        config: sizes.
    """

    def __init__(self, config: PV3DConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = TriplaneBackbone(config)
        self.mapping = MappingNetwork(
            config.z_dim, LABEL_SIZE, config.w_dim, num_ws=self.backbone.num_ws, num_layers=config.mapping_layers
        )
        self.decoder = TriplaneDecoder(config.plane_channels, config.decoder_width, config.plane_channels)
        self.to_raw = ToRGB(config.plane_channels, 3, config.w_dim, clamp=ACTIVATION_LIMIT)
        self.super_resolution = SuperResolution(
            config.plane_channels,
            config.w_dim,
            input_resolution=config.super_resolution_input,
            channels=config.super_resolution_channels,
        )

    @property
    def num_ws(self) -> int:
        """Number of style vectors."""
        return self.backbone.num_ws

    def planes(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        z_motion: Float[Tensor, "batch z_dim"],
        t: Float[Tensor, " batch"],
        *,
        noise: NoiseMode = "const",
    ) -> Float[Tensor, "batch 3 channels resolution resolution"]:
        """Tri-planes of each frame.

        Args:
            ws: style vectors from :attr:`mapping`.
            z_motion: motion codes, N(0, I).
            t: times in [0, 1].
            noise: per-pixel noise of the backbone.
        """
        if _as_batch(ws):
            planes = self.backbone(ws, z_motion, t, noise)
        else:
            rows = zip(ws.split(1), z_motion.split(1), t.split(1), strict=True)
            parts = [self.backbone(*row, noise) for row in rows]
            planes = parts[0] if len(parts) == 1 else torch.cat(parts)
        return planes.unflatten(1, (3, self.config.plane_channels))

    def field(
        self, points: Float[Tensor, "batch points 3"], planes: Float[Tensor, "batch 3 channels height width"]
    ) -> tuple[Float[Tensor, "batch points 1"], Float[Tensor, "batch points channels"]]:
        """Raw density (before softplus) and colour features, about [0, 1], at world points; outside the planes those of
        zero features.
        """
        return self.decoder(triplane_features(planes, points, self.config.box_warp))

    def density(
        self,
        points: Float[Tensor, "batch points 3"],
        ws: Float[Tensor, "batch num_ws w_dim"],
        z_motion: Float[Tensor, "batch z_dim"],
        t: Float[Tensor, " batch"],
        *,
        noise: NoiseMode = "const",
    ) -> Float[Tensor, "batch points 1"]:
        """Raw density (before softplus) at world points; see :meth:`field` for several looks at the same planes."""
        return self.field(points, self.planes(ws, z_motion, t, noise=noise))[0]

    def raw_image(
        self,
        features: Float[Tensor, "batch channels height width"],
        ws: Float[Tensor, "batch num_ws w_dim"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """RGB of rendered features in [-1, 1] (unlike EG3D, which takes the first three channels)."""
        return self.to_raw(features, ws[:, 0])

    def render(
        self,
        planes: Float[Tensor, "batch 3 channels height width"],
        ws: Float[Tensor, "batch num_ws w_dim"],
        camera: Camera,
        *,
        render_resolution: int | None = None,
        sampling: RaySampling = EVEN,
    ) -> PV3DOutput:
        """Volume rendering and super-resolution.

        Args:
            planes: from :meth:`planes`.
            ws: style vectors.
            camera: cameras of batch shape [batch].
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            sampling: random numbers of the ray sampler, for ``render_resolution**2`` rays in row-major order.

        Returns:
            Frames; where nothing is seen, depth is the largest one sampled in this batch.
        """
        resolution = render_resolution or self.config.render_resolution
        if _as_batch(ws):
            output = self._render(planes, ws, camera, resolution, sampling)
        else:
            # A frame must not even see the strides of its batch: they would choose other convolution kernels.
            rows = [slice(row, row + 1) for row in range(len(planes))]
            output = PV3DOutput.cat(
                [
                    self._render(planes[row], ws[row], camera[row], resolution, sampling[row, :], chunk=RAY_CHUNK)
                    for row in rows
                ]
            )
        bounded = bounded_depth(output.rays.depth, output.rays.depths)
        return replace(output, depth=bounded.mT.unflatten(2, (resolution, resolution)))

    def synthesis(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        z_motion: Float[Tensor, "batch z_dim"],
        t: Float[Tensor, " batch"],
        camera: Camera,
        *,
        render_resolution: int | None = None,
        noise: NoiseMode = "const",
        sampling: RaySampling = EVEN,
    ) -> PV3DOutput:
        """:meth:`planes`, then :meth:`render`."""
        planes = self.planes(ws, z_motion, t, noise=noise)
        return self.render(planes, ws, camera, render_resolution=render_resolution, sampling=sampling)

    def _render(
        self,
        planes: Tensor,
        ws: Tensor,
        camera: Camera,
        resolution: int,
        sampling: RaySampling,
        chunk: int | None = None,
    ) -> PV3DOutput:
        """Frames whose depth is not yet bounded."""
        rays = cast_rays(camera, resolution)
        rendered = render_rays(
            lambda points: self.field(points, planes), rays, self.config.depth_range, sampling, chunk=chunk
        )
        size = (resolution, resolution)
        features = (rendered.color * 2 - 1).mT.unflatten(2, size).contiguous()
        image_raw = self.raw_image(features, ws)
        return PV3DOutput(
            image=self.super_resolution(image_raw, features, ws[:, -1]),
            image_raw=image_raw,
            depth=rendered.depth.mT.unflatten(2, size),
            position=rendered.position.unflatten(1, size),
            opacity=rendered.opacity.unflatten(1, size),
            features=features,
            rays=rendered,
        )


def _as_batch(frames: Tensor) -> bool:
    return torch.is_grad_enabled() or frames.device.type != "cpu"
