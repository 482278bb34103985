"""GenHead's generator (Deng et al., CVPR 2024, "Portrait4D", section 3.2).

Tri-planes of a canonical head, a background, and volume rendering through the deformation of a FLAME head.

An identity is a latent code and FLAME's shape; everything that moves is in FLAME's parameters. Hence the tri-planes and
the background of an identity serve all its poses and views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from portraitzoo.faces.flame_arrays import NUM_SHAPE
from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.layers.mapping import MappingNetwork
from portraitzoo.layers.modulation import NoiseMode
from portraitzoo.layers.super_resolution import ACTIVATION_LIMIT, SuperResolution
from portraitzoo.layers.synthesis import SynthesisNetwork
from portraitzoo.methods.genhead.cameras import depth_bounds, label_of
from portraitzoo.methods.genhead.composition import CanonicalField, PartField, PartPlanes
from portraitzoo.methods.genhead.deformer import PosedHead, pose_heads
from portraitzoo.methods.genhead.masks import PartMasks, part_masks
from portraitzoo.rendering.cameras import LABEL_SIZE, Camera
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.triplane import TriplaneDecoder
from portraitzoo.rendering.volume import (
    RAY_CHUNK,
    DepthRange,
    RaySampling,
    RenderedRays,
    bounded_depth,
    render_rays,
)

CONDITION_SIZE = LABEL_SIZE + NUM_SHAPE
BLENDED_ABOVE = 64
"""Beyond this size of the volume rendering the mouth is blended with what is around it."""


@dataclass(frozen=True)
class GenHeadConfig:
    """Sizes of the generator; the defaults are those of the released network.

    Attributes:
        z_dim: width of the latent codes of head and background.
        w_dim: width of the style vectors.
        image_resolution: side of the finished image, pixels.
        plane_resolution: side of the tri-planes.
        plane_channels: channels of each plane, of the background and of the rendered feature image.
        channel_base: a block of resolution r has ``channel_base / r`` channels,
        channel_max: but not more than this.
        mapping_layers: layers of the mapping network.
        background_resolution, background_channel_base, background_channel_max, background_mapping_layers: the same of
            the background.
        decoder_width: hidden width of the decoder.
        super_resolution_input: side of the feature image that enters the super-resolution.
        super_resolution_channels: channels of its blocks, each of which doubles the size.
        super_resolution_noise: per-pixel noise of its convolutions.
        samples: coarse samples per ray, and as many importance samples.
        box_warp: side of the cube that the tri-planes cover and rays are sampled in.
        render_resolution: side of the volume-rendered image unless told otherwise; no weight depends on it.
        surface_level: raw density (before softplus) of meshes unless told otherwise.
        random_shapes: identity coefficients that are not 0 where shapes are drawn,
        shape_spread: and their standard deviation; how it is in the data depends on the head and on the fits.
        head: sizes of the FLAME head.
    """

    z_dim: int = 512
    w_dim: int = 512
    image_resolution: int = 512
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 2
    background_resolution: int = 64
    background_channel_base: int = 16384
    background_channel_max: int = 512
    background_mapping_layers: int = 8
    decoder_width: int = 64
    super_resolution_input: int = 128
    super_resolution_channels: tuple[int, ...] = (256, 128)
    super_resolution_noise: NoiseMode = "none"
    samples: int = 48
    box_warp: float = 1.3
    render_resolution: int = 64
    surface_level: float = 10.0
    random_shapes: int = 60
    shape_spread: float = 0.6
    head: HeadSizes = field(default_factory=HeadSizes)

    def __post_init__(self) -> None:
        # A config read from JSON has lists and dicts.
        object.__setattr__(self, "super_resolution_channels", tuple(self.super_resolution_channels))
        if isinstance(self.head, Mapping):
            object.__setattr__(self, "head", HeadSizes(**self.head))
        doublings = len(self.super_resolution_channels)
        if self.super_resolution_input * 2**doublings != self.image_resolution:
            raise ValueError(
                f"super-resolution doubles {self.super_resolution_input} pixels {doublings} times, "
                f"which does not give image_resolution {self.image_resolution}"
            )

    @property
    def channels(self) -> dict[int, int]:
        """Channels of each of the backbone's blocks, by their resolution."""
        return _channels(self.plane_resolution, self.channel_base, self.channel_max)

    @property
    def background_channels(self) -> dict[int, int]:
        """The same of the background."""
        return _channels(self.background_resolution, self.background_channel_base, self.background_channel_max)

    def widest_activation(self) -> int:
        """Numbers in the largest feature map of one frame."""
        planes = max(resolution**2 * count for resolution, count in self.channels.items())
        sizes = [self.super_resolution_input << level for level in range(1, len(self.super_resolution_channels) + 1)]
        finest = max(size**2 * channels for size, channels in zip(sizes, self.super_resolution_channels, strict=True))
        return max(planes, finest)


@dataclass(frozen=True)
class GenHeadOutput:
    """Rendered images.

    Attributes:
        image: finished images, about [-1, 1], not clamped.
        image_raw: images before super-resolution, about [-1, 1].
        features: rendered features in about [-1, 1], of which the first three are ``image_raw``.
        depth: expected distance along each ray, world units.
        position: expected world point of each ray.
        opacity: in [0, 1], light stopped within the volume; the rest is background.
        masks: where eyes, mouth and head are.
        face_in_eyes: raw density of the outer field within the boxes of the eyes, coarse samples then importance ones.
        face_in_mouth: raw density of the outer field on the mouth's rays, times their share.
        rays: the samples behind the pixels.
    """

    image: Float[Tensor, "batch 3 image_resolution image_resolution"]
    image_raw: Float[Tensor, "batch 3 resolution resolution"]
    features: Float[Tensor, "batch channels resolution resolution"]
    depth: Float[Tensor, "batch 1 resolution resolution"]
    position: Float[Tensor, "batch resolution resolution 3"]
    opacity: Float[Tensor, "batch 1 resolution resolution"]
    masks: PartMasks
    face_in_eyes: Float[Tensor, "batch rays samples"]
    face_in_mouth: Float[Tensor, "batch rays samples"]
    rays: RenderedRays

    @property
    def segmentation(self) -> Float[Tensor, "batch 1 resolution resolution"]:
        """Head against background, as the discriminator sees it: -1 where all is background, 1 where nothing is."""
        return 2 * self.opacity - 1


class Styled(nn.Module):
    """A mapping network and the synthesis that takes its style vectors.

    Args:
        z_dim: width of the latent code.
        label_dim: width of the condition; 0 for none.
        w_dim: width of the style vectors.
        image_channels: channels of the image.
        channels: features of each resolution.
        mapping_layers: layers of the mapping network.
        clamp: of the synthesis.
    """

    def __init__(
        self,
        z_dim: int,
        label_dim: int,
        w_dim: int,
        image_channels: int,
        channels: Mapping[int, int],
        *,
        mapping_layers: int,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(w_dim, image_channels, channels, clamp=clamp)
        self.mapping = MappingNetwork(z_dim, label_dim, w_dim, num_ws=self.synthesis.num_ws, num_layers=mapping_layers)


class Generator(nn.Module):
    """From codes, FLAME's parameters and cameras to images.

    On a CPU without gradients images are computed one by one, so that an image is the same, bit for bit, whatever the
    batch it is in; larger batches bring no speed there. Rays are always rendered image by image.

    Args:
        config: sizes.
    """

    def __init__(self, config: GenHeadConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.z_dim, CONDITION_SIZE, config.w_dim)
        self.backbone = Styled(
            *widths, 6 * config.plane_channels, config.channels, mapping_layers=config.mapping_layers
        )
        self.background = Styled(
            config.z_dim,
            0,
            config.w_dim,
            config.plane_channels,
            config.background_channels,
            mapping_layers=config.background_mapping_layers,
            clamp=ACTIVATION_LIMIT,
        )
        self.decoder = TriplaneDecoder(config.plane_channels, config.decoder_width, config.plane_channels)
        with torch.no_grad():
            self.decoder.output.weight[0] = 0  # nothing is denser than anything else at first
        self.super_resolution = SuperResolution(
            config.plane_channels,
            config.w_dim,
            input_resolution=config.super_resolution_input,
            channels=config.super_resolution_channels,
            noise=config.super_resolution_noise,
        )
        self.head = FlameHead(config.head)

    def mapping(
        self,
        z: Float[Tensor, "batch z_dim"],
        camera: Camera,
        shape: Float[Tensor, "batch 300"],
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Style vectors of identities.

        Args:
            z: latent codes, N(0, I).
            camera: that hold the whole pose of the heads, as if their necks were straight.
            shape: FLAME's identity coefficients.
            truncation_psi: 1 keeps w, 0 replaces it by the average.
            truncation_cutoff: number of leading style vectors that are truncated; None for all.
            update_average: move the running average towards the mean w of this batch.
        """
        condition = torch.cat([label_of(camera), shape], dim=1)
        return self.backbone.mapping(
            z,
            condition,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
            update_average=update_average,
        )

    def planes(self, ws: Float[Tensor, "batch num_ws w_dim"], *, noise: NoiseMode = "const") -> PartPlanes:
        """Tri-planes of eyes and mouth, and of the rest.

        Args:
            ws: from :meth:`mapping`.
            noise: per-pixel noise of the backbone.
        """
        planes = self._rows(lambda rows: self.backbone.synthesis(rows, noise), ws)
        inner, outer = planes.unflatten(1, (6, self.config.plane_channels)).split(3, dim=1)
        return _texels_together(inner), _texels_together(outer)

    def backdrop(
        self, z: Float[Tensor, "batch z_dim"], *, noise: NoiseMode = "const", update_average: bool = False
    ) -> Float[Tensor, "batch channels size size"]:
        """Features of the background, in (0, 1).

        Args:
            z: latent codes, N(0, I); those of the heads in all that was published.
            noise: per-pixel noise.
            update_average: as in :meth:`mapping`.
        """
        ws = self.background.mapping(z, update_average=update_average)
        return self._rows(lambda rows: self.background.synthesis(rows, noise), ws).sigmoid()

    def pose(
        self, parameters: FlameParameters, *, eyelids: Float[Tensor, "batch 100"] | None = None
    ) -> list[PosedHead]:
        """Heads in their poses; see :func:`~portraitzoo.methods.genhead.deformer.pose_heads`."""
        if _as_batch(parameters.shape):
            return pose_heads(self.head, parameters, eyelids=eyelids)
        rows = [slice(row, row + 1) for row in range(len(parameters))]
        lids = [None if eyelids is None else eyelids[row] for row in rows]
        return [
            head
            for row, lid in zip(rows, lids, strict=True)
            for head in pose_heads(self.head, parameters[row], eyelids=lid)
        ]

    def field(self, planes: PartPlanes) -> CanonicalField:
        """The fields of one identity in canonical space."""
        return CanonicalField(planes, self.decoder, self.config.box_warp)

    def render(
        self,
        planes: PartPlanes,
        backdrop: Float[Tensor, "batch channels size size"],
        heads: Sequence[PosedHead],
        camera: Camera,
        *,
        render_resolution: int | None = None,
        sampling: RaySampling | None = None,
    ) -> GenHeadOutput:
        """Volume rendering and super-resolution.

        Args:
            planes: from :meth:`planes`.
            backdrop: from :meth:`backdrop`.
            heads: in their poses.
            camera: as many; what they see is the heads with their necks turned.
            render_resolution: side of the volume-rendered image; None takes the configuration's.
            sampling: random numbers of the ray sampler; None takes the middles of even intervals.
        """
        resolution = render_resolution or self.config.render_resolution
        vertices = torch.stack([head.vertices for head in heads])
        masks = part_masks(
            self.head, vertices, camera, image_resolution=self.config.image_resolution, resolution=resolution
        )
        parts, seen = [], []
        for index, head in enumerate(heads):
            row = slice(index, index + 1)
            own = (planes[0][row], planes[1][row])
            eyes, mouth = masks.eyes[index].flatten(), masks.mouth[index].flatten()
            chosen = None if sampling is None else sampling[row, :]
            rendered, densities = self._rays(self.field(own), head, camera[row], eyes, mouth, resolution, chosen)
            parts.append(rendered)
            seen.append(densities)
        rays = RenderedRays.cat(parts, dim=0)
        size = (resolution, resolution)
        behind = (1 - rays.opacity).mT.unflatten(2, size)
        features = rays.color.mT.unflatten(2, size) + behind * resize_plainly(backdrop, resolution)
        features = features * 2 - 1
        image_raw = features[:, :3]
        return GenHeadOutput(
            image=self._enlarged(image_raw, features),
            image_raw=image_raw,
            features=features,
            depth=bounded_depth(rays.depth, rays.depths).mT.unflatten(2, size),
            position=rays.position.unflatten(1, size),
            opacity=1 - behind,
            masks=masks,
            face_in_eyes=torch.cat([eyes for eyes, _ in seen]),
            face_in_mouth=torch.cat([mouth for _, mouth in seen]),
            rays=rays,
        )

    def _rays(
        self,
        canonical: CanonicalField,
        head: PosedHead,
        camera: Camera,
        eyes: Float[Tensor, " rays"],
        mouth: Float[Tensor, " rays"],
        resolution: int,
        sampling: RaySampling | None,
    ) -> tuple[RenderedRays, tuple[Tensor, Tensor]]:
        """Rays of one image, and the outer density within the eyes' boxes and on the mouth's rays."""
        rays = cast_rays(camera, resolution)
        samples = self.config.samples
        span = DepthRange(*depth_bounds(camera, self.config.box_warp), samples, samples)
        if sampling is None:
            sampling = RaySampling(jitter=rays.origins.new_full((1, 1, 1), 0.5).expand(1, len(eyes), samples))
        chunk = len(eyes) if torch.is_grad_enabled() or eyes.is_cuda else RAY_CHUNK
        parts, in_eyes, in_mouth = [], [], []
        for start in range(0, len(eyes), chunk):
            some = slice(start, start + chunk)
            field = PartField(canonical, head, eyes[some], mouth[some], blended=resolution > BLENDED_ABOVE)
            parts.append(render_rays(field, rays[:, some], span, sampling[:, some]))
            in_eyes.append(_by_ray(field.face_in_eyes, samples))
            in_mouth.append(_by_ray(field.face_in_mouth, samples))
        return RenderedRays.cat(parts, dim=1), (torch.cat(in_eyes, dim=1), torch.cat(in_mouth, dim=1))

    def _enlarged(self, image_raw: Tensor, features: Tensor) -> Tensor:
        w = features.new_ones(1, self.config.w_dim)  # its style is always the same
        if _as_batch(features):
            return self.super_resolution(image_raw, features, w.expand(len(features), -1))
        rows = zip(image_raw.split(1), features.split(1), strict=True)
        return torch.cat([self.super_resolution(*(part.contiguous() for part in row), w) for row in rows])

    def _rows(self, network: object, ws: Tensor) -> Tensor:
        assert callable(network)
        return network(ws) if _as_batch(ws) else torch.cat([network(row) for row in ws.split(1)])


def resize_plainly(
    image: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Bilinear resize without antialiasing."""
    if image.shape[-1] == size:
        return image
    return nn.functional.interpolate(image, (size, size), mode="bilinear", align_corners=False)


def _channels(resolution: int, base: int, most: int) -> dict[int, int]:
    sizes = [4 << level for level in range(resolution.bit_length() - 2)]
    return {size: min(base // size, most) for size in sizes}


def _texels_together(
    planes: Float[Tensor, "batch 3 channels size size"],
) -> Float[Tensor, "batch 3 channels size size"]:
    """The same planes with the channels of a texel side by side, in which lookups of points are quick."""
    return planes.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)


def _by_ray(densities: Sequence[Float[Tensor, " points"]], samples: int) -> Float[Tensor, "1 rays all_samples"]:
    return torch.cat([density.unflatten(0, (-1, samples)) for density in densities], dim=1)[None]


def _as_batch(frames: Tensor) -> bool:
    return torch.is_grad_enabled() or frames.device.type != "cpu"
