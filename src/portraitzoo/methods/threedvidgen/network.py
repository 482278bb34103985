"""The generator of 3D-Aware Video Generation (Bahmani et al., TMLR 2023, section 3): StyleNeRF with motion.

A video is an appearance code, a motion code, a background code, a camera and a time for each frame. A moving foreground
field and a still background are volume-rendered to a small feature image, which a view-consistent upsampler enlarges.

From codes to frames, in evaluation and in training::

    output = generator(z, z_motion, times, camera, z_background)                 # even samples, no noise
    output = generator(z, z_motion, times, camera, z_background, draws=draws)    # training: NeRF path regularisation

    z             [videos, z_dim]           N(0, I)
    z_motion      [videos, motion_dim]      N(0, I)
    times         [videos, frames]          in [0, 1]
    camera        batch shape [videos] (shared by the frames) or [videos, frames]
    z_background  [videos, background_dim]  N(0, I), times the temperature
    draws         renderer.Draws.fresh(generator.training_rays, generator.span, [a torch.Generator per video])

    output.image           [videos * frames, 3, resolution, resolution], frame index fastest
    output.image_raw       [videos * frames, 3, 32, 32]
    output.regularisation  [videos * frames, 1] with draws, else None

``mapping(z, ...)`` and ``synthesis(ws, ...)`` are the two halves, for style mixing and path lengths. In train mode the
upsampler's magnitude averages move with every forward pass; the average w moves only with
``mapping(z, update_average=True)``. The buffer ``alpha`` is -1 in a fresh generator (20 samples a ray) and afterwards
what training sets from its schedule (``config.ray_samples`` samples).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from portraitzoo.layers.mapping import MappingNetwork
from portraitzoo.methods.threedvidgen.background import BackgroundField
from portraitzoo.methods.threedvidgen.field import ForegroundField, StyledField
from portraitzoo.methods.threedvidgen.renderer import Draws, Rendered, Samples, Span, render, render_backdrop
from portraitzoo.methods.threedvidgen.upsampler import Enlargement, UpsamplerBlock
from portraitzoo.methods.threedvidgen.upsampler_strips import StyledUpsampler
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import Rays, pixel_centres

AVERAGE_DECAY = 0.995
RAY_CHUNK = 128
"""Rays rendered at a time on a CPU: few enough that a layer's features stay in the cache."""
FRESH_ALPHA = -1.0
FRESH_SAMPLES = 20
"""Samples of a ray while ``alpha`` is still :data:`FRESH_ALPHA`."""
REGULARISATION_GAIN = 2.0


@dataclass(frozen=True)
class ThreeDVidGenConfig:
    """Sizes of the generator; the defaults are those of the FaceForensics checkpoint.

    Attributes:
        z_dim: width of the appearance code.
        w_dim: width of the style vectors.
        motion_dim: width of the motion code.
        background_dim: width of the background code.
        mapping_layers: layers of the mapping network.
        image_resolution: side of the finished image, pixels.
        render_resolution: side of the volume-rendered image.
        feature_channels: channels of the volume-rendered features.
        channel_base: upsampled features of resolution r have ``channel_base / r`` channels,
        channel_max: but not more than this.
        enlargement: how the upsampler's adapters work: ``neighbours`` or ``pixelshuffle`` (MEAD).
        field_width: width of the foreground field.
        field_layers: its hidden layers.
        view_dependent: whether its colour depends on the direction of view (not in MEAD).
        motion_width: hidden width of the motion network.
        background_width: width of the background field.
        background_layers: its hidden layers.
        ray_samples: coarse samples of a ray, and as many importance samples.
        background_samples: samples of a ray in the background.
        depth_near: depth of the first foreground sample, world units.
        depth_far: depth of the last.
        background_start: inverse distance from the centre at which the background begins.
        regularised_pixels: side of the grid of pixels that NeRF path regularisation compares.
        fov: full field of view of the cameras, degrees.
        yaw_range: cameras' yaw in training has the middle of this as mean and half its length as deviation, radians.
        polar_range: the same for the angle from the upright axis; pi / 2 is level.
        radius_range: distance of the cameras from the centre, uniform.
    """

    z_dim: int = 512
    w_dim: int = 512
    motion_dim: int = 512
    background_dim: int = 32
    mapping_layers: int = 8
    image_resolution: int = 256
    render_resolution: int = 32
    feature_channels: int = 256
    channel_base: int = 32768
    channel_max: int = 512
    enlargement: Enlargement = "neighbours"
    field_width: int = 128
    field_layers: int = 8
    view_dependent: bool = True
    motion_width: int = 128
    background_width: int = 64
    background_layers: int = 4
    ray_samples: int = 14
    background_samples: int = 4
    depth_near: float = 0.88
    depth_far: float = 1.12
    background_start: float = 0.5
    regularised_pixels: int = 16
    fov: float = 18.0
    yaw_range: tuple[float, float] = (-0.8, 0.8)
    polar_range: tuple[float, float] = (1.4157963267948965, 1.7257963267948966)
    radius_range: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("yaw_range", "polar_range", "radius_range"):  # a config read from JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.resolutions or self.resolutions[-1] != self.image_resolution:
            raise ValueError(
                f"the upsampler doubles {self.render_resolution} pixels, which never gives {self.image_resolution}"
            )
        if self.enlargement not in ("neighbours", "pixelshuffle"):
            raise ValueError(f"enlargement is 'neighbours' or 'pixelshuffle', not {self.enlargement!r}")
        if self.image_resolution % self.regularised_pixels:
            raise ValueError(
                f"{self.regularised_pixels} regularised pixels do not divide a side of {self.image_resolution}"
            )

    @property
    def resolutions(self) -> list[int]:
        """Resolutions of the upsampler's blocks."""
        count = (self.image_resolution // self.render_resolution).bit_length() - 1
        return [self.render_resolution << level for level in range(1, count + 1)]

    def channels(self, resolution: int) -> int:
        """Channels of upsampled features of a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


@dataclass(frozen=True)
class Style:
    """What the style vectors of one video decide, computed once for any number of frames and cameras.

    Attributes:
        field: the foreground with its weights modulated.
        upsampler: the upsampler with its weights modulated.
    """

    field: StyledField
    upsampler: StyledUpsampler


@dataclass(frozen=True)
class ThreeDVidGenOutput:
    """Rendered frames; those of a video follow each other.

    Attributes:
        image: finished frames, about [-1, 1], not clamped.
        image_raw: volume-rendered frames, about [-1, 1].
        features: volume-rendered features, the input of the upsampler.
        origins: of the rays of ``image_raw``, row by row.
        directions: of these rays, of depth 1.
        depths: foreground depths along each ray, ascending.
        weights: share of the light stopped at each of them.
        background_weights: light stopped at each background sample, of what reaches the background.
        transmittance: light that reaches the background.
        regularisation: NeRF path regularisation of each frame; None without draws.
    """

    image: Float[Tensor, "batch 3 image_resolution image_resolution"]
    image_raw: Float[Tensor, "batch 3 resolution resolution"]
    features: Float[Tensor, "batch channels resolution resolution"]
    origins: Float[Tensor, "batch rays 3"]
    directions: Float[Tensor, "batch rays 3"]
    depths: Float[Tensor, "batch rays samples"]
    weights: Float[Tensor, "batch rays samples"]
    background_weights: Float[Tensor, "batch rays background_samples"]
    transmittance: Float[Tensor, "batch rays"]
    regularisation: Float[Tensor, "batch 1"] | None = None


class Generator(nn.Module):
    """From codes, times and cameras to frames.

    Args:
        config: sizes.
    """

    alpha: Tensor

    def __init__(self, config: ThreeDVidGenConfig) -> None:
        super().__init__()
        self.config = config
        self.field = ForegroundField(
            config.w_dim,
            width=config.field_width,
            layers=config.field_layers,
            feature_channels=config.feature_channels,
            view_dependent=config.view_dependent,
            motion_dim=config.motion_dim,
            motion_width=config.motion_width,
        )
        self.background = BackgroundField(
            config.background_dim,
            width=config.background_width,
            layers=config.background_layers,
            feature_channels=config.feature_channels,
        )
        self.upsampler = nn.ModuleDict()
        in_channels = config.feature_channels
        for resolution in config.resolutions:
            channels = config.channels(resolution)
            self.upsampler[f"b{resolution}"] = UpsamplerBlock(in_channels, channels, config.w_dim, config.enlargement)
            in_channels = channels
        self.mapping = MappingNetwork(
            config.z_dim,
            0,
            config.w_dim,
            num_ws=self.num_ws,
            num_layers=config.mapping_layers,
            average_decay=AVERAGE_DECAY,
        )
        self.register_buffer("alpha", torch.tensor(FRESH_ALPHA))

    @property
    def num_ws(self) -> int:
        """Number of style vectors: the field's, two for each block, and the last block's image."""
        return self.field.num_ws + UpsamplerBlock.NUM_CONVS * len(self.upsampler) + 1

    @property
    def span(self) -> Span:
        """Where rays are sampled now; depends on ``alpha``."""
        return self._span(FRESH_SAMPLES if float(self.alpha) == FRESH_ALPHA else self.config.ray_samples)

    @property
    def training_rays(self) -> int:
        """Rays of a frame in training: the image's and the regularised ones."""
        return self.config.render_resolution**2 + self.config.regularised_pixels**2

    def forward(
        self,
        z: Float[Tensor, "videos z_dim"],
        z_motion: Float[Tensor, "videos motion_dim"],
        times: Float[Tensor, "videos frames"],
        camera: Camera,
        z_background: Float[Tensor, "videos background_dim"],
        *,
        draws: Draws | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> ThreeDVidGenOutput:
        """:attr:`mapping`, then :meth:`synthesis`; see the head of this module."""
        ws = self.mapping(z, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, z_motion, times, camera, z_background, draws=draws)

    def synthesis(
        self,
        ws: Float[Tensor, "videos num_ws w_dim"],
        z_motion: Float[Tensor, "videos motion_dim"],
        times: Float[Tensor, "videos frames"],
        camera: Camera,
        z_background: Float[Tensor, "videos background_dim"],
        *,
        draws: Draws | None = None,
        samples: int | None = None,
        with_background: bool = True,
        background_camera: Camera | None = None,
        style: Style | None = None,
    ) -> ThreeDVidGenOutput:
        """Frames of some style vectors.

        Args:
            ws: style vectors from :attr:`mapping`.
            z_motion: motion codes.
            times: in [0, 1].
            camera: cameras of batch shape [videos] or [videos, frames].
            z_background: background codes.
            draws: random numbers of training; None for even samples without noise.
            samples: coarse samples of a ray; None for as many as the network was trained with.
            with_background: False shows the foreground alone, its last sample opaque.
            background_camera: the background is seen by this one instead, as if it stood still; shaped as ``camera``.
            style: from :meth:`style` for the same single ``ws``, to be spared from preparing it again on a CPU.
        """
        frames, side = tuple(times.shape), self.config.render_resolution
        span = self.span if samples is None else self._span(samples)
        places = pixel_centres(side).to(times)
        regularised, separate = None, 0
        if draws is not None:
            regularised, separate = self._regularised_pixels(draws.offsets), self.config.regularised_pixels**2
            chosen = pixel_centres(self.config.image_resolution).to(times)[regularised]
            places = torch.cat([places.expand(len(ws), -1, -1), chosen], dim=1)
            places = places.repeat_interleave(frames[1], dim=0)
        rays = _cast(camera, places, frames)
        still = rays if background_camera is None else _cast(background_camera, places, frames)
        if draws is None and not torch.is_grad_enabled() and ws.device.type == "cpu":
            styles = [style] if style is not None else [self.style(part) for part in ws.split(1)]
            code = z_background if with_background else None
            rendered, image = self._frame_by_frame(styles, rays, still, span, (z_motion, times), code)
        else:
            backdrop = None
            if with_background:
                backdrop = render_backdrop(self.background, still, span, z_background, draws, separate=separate)
            motion = self.field.motion(z_motion, times)
            rendered = render(self.field.styled(ws), rays, span, motion, backdrop, draws, separate=separate)
            image = self._enlarge(rendered, ws)
        finished = image.flatten(0, 1).movedim(-1, 1)
        visible = slice(None), slice(None), slice(side**2)
        regularisation = None
        if rendered.samples is not None and regularised is not None:
            regularisation = self._regularisation(finished, rendered.samples, regularised, ws)
        return ThreeDVidGenOutput(
            image=finished,
            image_raw=rendered.color[visible].flatten(0, 1).mT.unflatten(2, (side, side)),
            features=rendered.features[visible].flatten(0, 1).mT.unflatten(2, (side, side)),
            origins=rays.origins[visible].flatten(0, 1),
            directions=rays.directions[visible].flatten(0, 1),
            depths=rendered.depths[visible].flatten(0, 1),
            weights=rendered.weights[visible].flatten(0, 1),
            background_weights=rendered.background_weights[visible].flatten(0, 1),
            transmittance=rendered.transmittance[visible].flatten(0, 1),
            regularisation=regularisation,
        )

    def style(self, ws: Float[Tensor, "1 num_ws w_dim"]) -> Style:
        """What the style vectors of one video decide; see :class:`Style`."""
        return Style(self.field.styled(ws), StyledUpsampler(self._blocks(ws)))

    def _frame_by_frame(
        self,
        styles: list[Style],
        rays: Rays,
        background_rays: Rays,
        span: Span,
        motion: tuple[Float[Tensor, "videos motion_dim"], Float[Tensor, "videos frames"]],
        code: Float[Tensor, "videos latent_dim"] | None,
    ) -> tuple[Rendered, Float[Tensor, "videos frames height width 3"]]:
        """What a CPU does without gradients: frames one by one and rays in chunks, which stay in the cache.

        Hence a frame is the same, bit for bit, whatever the batch it is in. ``motion`` is a code and the times.
        """
        z_motion, times = motion
        rows, images = [], []
        for video, style in enumerate(styles):
            backdrop, seen = None, None
            parts, frames = [], []
            for frame in range(times.shape[1]):
                here = slice(video, video + 1), slice(frame, frame + 1)
                behind = background_rays[here]
                moved = self.field.motion(z_motion[here[0]], times[here])
                if code is not None and (seen is None or not _equal(seen, behind)):
                    backdrop, seen = render_backdrop(self.background, behind, span, code[video, None]), behind
                chunks = [
                    render(
                        style.field,
                        rays[(*here, part)],
                        span,
                        moved,
                        None if backdrop is None else backdrop[part],
                    )
                    for part in _chunks(rays.origins.shape[2])
                ]
                parts.append(Rendered.cat(chunks, dim=2))
                frames.append(style.upsampler(*self._maps(parts[-1])))
            rows.append(Rendered.cat(parts, dim=1))
            images.append(torch.cat(frames, dim=1))
        return Rendered.cat(rows, dim=0), torch.cat(images)

    def _maps(
        self, rendered: Rendered
    ) -> tuple[Float[Tensor, "videos frames height width channels"], Float[Tensor, "videos frames height width 3"]]:
        """Rendered features and colour as images."""
        side = self.config.render_resolution
        features, color = (
            part[:, :, : side**2].unflatten(2, (side, side)) for part in (rendered.features, rendered.color)
        )
        return features, color

    def _enlarge(
        self, rendered: Rendered, ws: Float[Tensor, "videos num_ws w_dim"]
    ) -> Float[Tensor, "videos frames height width 3"]:
        """Finished images of what was rendered."""
        x, image = self._maps(rendered)
        for block, rows in self._blocks(ws):
            x, image = block(x, image, rows)
        return image

    def _span(self, samples: int) -> Span:
        config = self.config
        return Span(config.depth_near, config.depth_far, samples, config.background_start, config.background_samples)

    def _blocks(self, ws: Float[Tensor, "videos num_ws w_dim"]) -> Iterator[tuple[UpsamplerBlock, Tensor]]:
        """Each block of the upsampler with its style vectors; the image's is that of the next block's first layer."""
        row = self.field.num_ws
        for block in self.upsampler.values():
            assert isinstance(block, UpsamplerBlock)
            yield block, ws[:, row : row + UpsamplerBlock.NUM_CONVS + 1]
            row += UpsamplerBlock.NUM_CONVS

    def _regularised_pixels(self, offsets: Float[Tensor, "videos 2"]) -> Int[Tensor, "videos pixels"]:
        """One pixel of each cell of the image, the same in all cells: indices, row by row."""
        side = self.config.image_resolution
        cell = side // self.config.regularised_pixels
        starts = torch.arange(0, side, cell, device=offsets.device)
        across, down = (starts + shift for shift in (offsets * cell).floor().long()[..., None].unbind(dim=1))
        return (down[:, :, None] * side + across[:, None, :]).flatten(1)

    def _regularisation(
        self,
        image: Float[Tensor, "batch 3 height width"],
        samples: Samples,
        pixels: Int[Tensor, "videos pixels"],
        ws: Float[Tensor, "videos num_ws w_dim"],
    ) -> Float[Tensor, "batch 1"]:
        """NeRF path regularisation (StyleNeRF, section 3.3): pixels of the image should be what compositing after the
        upsampler gives, whose layers then see single samples of the volume.
        """
        x, color = (part.flatten(1, 3) for part in (samples.features, samples.color))
        for block, rows in self._blocks(ws):
            x, color = block.pointwise(x, color, rows)
        shape = samples.weights.shape
        composited = (samples.weights[..., None, :] @ color.unflatten(1, shape[1:])).squeeze(-2).flatten(0, 1)
        chosen = pixels.repeat_interleave(shape[1], dim=0)[:, None].expand(-1, 3, -1)
        rendered = image.flatten(2).gather(2, chosen).mT
        return REGULARISATION_GAIN * (rendered - composited).square().sum(dim=-1).mean(dim=-1, keepdim=True)


def _chunks(rays: int) -> Iterator[slice]:
    return (slice(start, start + RAY_CHUNK) for start in range(0, rays, RAY_CHUNK))


def _equal(one: Rays, other: Rays) -> bool:
    return torch.equal(one.origins, other.origins) and torch.equal(one.directions, other.directions)


def _cast(camera: Camera, places: Float[Tensor, "*batch pixels 2"], frames: tuple[int, ...]) -> Rays:
    """Rays of all frames, [videos, frames, rays, 3]."""
    if len(camera.shape) == 1:
        camera = Camera(camera.cam2world[:, None], camera.intrinsics[:, None])
    camera = camera.expand(*frames)
    flat = Camera(camera.cam2world.flatten(0, 1), camera.intrinsics.flatten(0, 1))
    rays = depth_rays(flat, places)
    return Rays(rays.origins.unflatten(0, frames), rays.directions.unflatten(0, frames))


def depth_rays(camera: Camera, places: Float[Tensor, "*batch pixels 2"]) -> Rays:
    """Rays whose distances are depths along the optical axis: their directions advance 1 along it.

    The field hears coordinates at up to 2^9 pi, where the last bit of a float turns the phase by 1e-4. So this is done
    in the very order of operations in which the released networks were trained: points of the image plane in the world
    first, then less the origin.

    Args:
        camera: cameras of batch shape [batch].
        places: (x, y) in units of the image size, from the upper left; with or without a batch of their own.
    """
    cam2world, intrinsics = camera.cam2world, camera.intrinsics
    origins = cam2world[:, None, :3, 3]
    per_pixel = torch.stack([0.5 / intrinsics[:, 0, 0], 0.5 / intrinsics[:, 1, 1]], dim=-1)
    plane = torch.cat([cam2world[..., :2] * per_pixel[:, None], cam2world[..., 2:]], dim=-1)
    down = 2 * (places[..., 1] - intrinsics[:, 1, 2, None])
    right = (
        2 * (places[..., 0] - intrinsics[:, 0, 2, None]) - down * (intrinsics[:, 0, 1] / intrinsics[:, 1, 1])[:, None]
    )
    ones = torch.ones_like(right)
    world = (plane @ torch.stack([right, down, ones, ones], dim=-2))[:, :3].mT
    return Rays(origins.expand_as(world), world - origins)
