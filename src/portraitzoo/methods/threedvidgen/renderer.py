"""Volume rendering of foreground and background (Bahmani et al., section 3.1; NeRF, section 5.2; NeRF++).

Random numbers belong to a video and are shared by its frames, so that frames differ by motion alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portraitzoo.methods.threedvidgen.background import BackgroundField
from portraitzoo.methods.threedvidgen.field import StyledField
from portraitzoo.rendering.inverted_sphere import inverted_sphere
from portraitzoo.rendering.rays import Rays
from portraitzoo.rendering.volume import invert_distribution, point_weights


@dataclass(frozen=True)
class Span:
    """Where rays are sampled.

    Attributes:
        near: depth of the first foreground sample, along the optical axis, world units.
        far: depth of the last.
        samples: coarse samples of a ray, and as many importance samples.
        background_start: inverse distance from the centre at which the background begins; it ends at infinity.
        background_samples: samples of a ray in the background.
    """

    near: float
    far: float
    samples: int
    background_start: float
    background_samples: int

    def depths(self, places: Float[Tensor, "*rays samples"]) -> Float[Tensor, "*rays samples"]:
        """Depths of places in [0, 1] between near and far."""
        return self.far * places + self.near * (1 - places)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a rendering in training. The rays are those of the image, then the regularised ones.

    Attributes:
        offsets: uniform, which pixel of each cell of the image is regularised (x, y).
        jitter: uniform, moves each coarse sample within its interval.
        noise: normal, added to the raw densities of the coarse samples.
        uniforms: uniform, places of the importance samples.
        fine_noise: normal, for the importance samples.
        background_jitter: uniform, for the background's samples.
        background_noise: normal, for the background's samples.
    """

    offsets: Float[Tensor, "videos 2"]
    jitter: Float[Tensor, "videos rays samples"]
    noise: Float[Tensor, "videos rays samples"]
    uniforms: Float[Tensor, "videos rays samples"]
    fine_noise: Float[Tensor, "videos rays samples"]
    background_jitter: Float[Tensor, "videos rays background_samples"]
    background_noise: Float[Tensor, "videos rays background_samples"]

    @classmethod
    def fresh(cls, rays: int, span: Span, generators: Sequence[torch.Generator]) -> Draws:
        """New random numbers, each video's from a generator of its own, on that generator's device.

        Args:
            rays: rays of a frame, the regularised ones included.
            span: where they are sampled.
            generators: one for each video.
        """
        shapes = ((2,), *[(rays, span.samples)] * 4, *[(rays, span.background_samples)] * 2)
        kinds = (torch.rand, torch.rand, torch.randn, torch.rand, torch.randn, torch.rand, torch.randn)
        columns = [
            torch.stack([kind(shape, generator=one, device=one.device) for one in generators])
            for kind, shape in zip(kinds, shapes, strict=True)
        ]
        return cls(*columns)

    def to(self, device: torch.device | str) -> Draws:
        """The same numbers on another device."""
        return Draws(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class Samples:
    """Samples before compositing.

    Attributes:
        color: of each sample.
        features: of each sample.
        weights: share of each sample in its pixel.
    """

    color: Float[Tensor, "videos frames rays all 3"]
    features: Float[Tensor, "videos frames rays all channels"]
    weights: Float[Tensor, "videos frames rays all"]

    def before(self, behind: Samples, transmittance: Float[Tensor, "videos frames rays"]) -> Samples:
        """These samples and those behind them, which only ``transmittance`` of the light reaches."""
        return Samples(
            torch.cat([self.color, behind.color], dim=3),
            torch.cat([self.features, behind.features], dim=3),
            torch.cat([self.weights, transmittance[..., None] * behind.weights], dim=3),
        )


@dataclass(frozen=True)
class Backdrop:
    """The background along rays, as if nothing stood before it. It depends on the camera, but not on time.

    Attributes:
        color: about [-1, 1].
        features: what the upsampler sees.
        weights: light stopped at each sample, 1 in all.
        samples: of the rays wanted sample by sample; None without any.
    """

    color: Float[Tensor, "videos frames rays 3"]
    features: Float[Tensor, "videos frames rays channels"]
    weights: Float[Tensor, "videos frames rays background_samples"]
    samples: Samples | None = None

    def __getitem__(self, rays: slice) -> Backdrop:
        """Some of the rays."""
        return Backdrop(self.color[:, :, rays], self.features[:, :, rays], self.weights[:, :, rays])


@dataclass(frozen=True)
class Rendered:
    """What is seen along rays.

    Attributes:
        color: composited colour, about [-1, 1].
        features: composited features.
        depths: foreground depths, ascending.
        weights: light stopped at each of them.
        background_weights: light stopped at each background sample, of what reaches the background.
        transmittance: light that reaches the background.
        samples: of the rays wanted sample by sample, foreground then background; None without any.
    """

    color: Float[Tensor, "videos frames rays 3"]
    features: Float[Tensor, "videos frames rays channels"]
    depths: Float[Tensor, "videos frames rays 2*samples"]
    weights: Float[Tensor, "videos frames rays 2*samples"]
    background_weights: Float[Tensor, "videos frames rays background_samples"]
    transmittance: Float[Tensor, "videos frames rays"]
    samples: Samples | None = None

    @classmethod
    def cat(cls, parts: list[Rendered], dim: int) -> Rendered:
        """Join renders without ``samples`` along the videos (0), frames (1) or rays (2)."""
        names = ("color", "features", "depths", "weights", "background_weights", "transmittance")
        joined = {name: torch.cat([getattr(part, name) for part in parts], dim=dim) for name in names}
        return cls(**joined, samples=None)


def render_backdrop(
    background: BackgroundField,
    rays: Rays,
    span: Span,
    code: Float[Tensor, "videos latent_dim"],
    draws: Draws | None = None,
    *,
    separate: int = 0,
) -> Backdrop:
    """Render the background, from where it begins to infinity.

    Args:
        background: its field.
        rays: with origins and directions [videos, frames, rays, 3].
        span: where they are sampled.
        code: background codes.
        draws: random numbers; None for even sampling without noise.
        separate: how many of the last rays are wanted sample by sample.
    """
    even = torch.linspace(-1, 0, span.background_samples, device=code.device) * span.background_start
    places = _coarse(even, rays.origins.shape[:3], None if draws is None else draws.background_jitter)
    directions = F.normalize(rays.directions, dim=-1)[..., None, :].expand(*places.shape, 3)
    points, _ = inverted_sphere(rays.origins[..., None, :].expand_as(directions), directions, -places)
    hidden = background.hidden(points, code[:, None, None, None].expand(*places.shape, -1))
    raw = background.sigma_out(hidden).squeeze(-1)
    density = F.relu(raw if draws is None else raw + draws.background_noise[:, None])
    weights, _ = point_weights(density, places, opaque_end=True)
    # Features and colour are linear in the hidden features: sums over samples come first.
    excess = weights.sum(dim=-1, keepdim=True) - 1
    features = background.feat_out(_weighted(weights, hidden)) + background.feat_out.bias * excess
    color = background.to_rgb(features) + background.to_rgb.bias * excess
    samples = None
    if separate:
        each = background.feat_out(hidden[:, :, -separate:])
        samples = Samples(background.to_rgb(each), each, weights[:, :, -separate:])
    return Backdrop(color, features, weights, samples)


def render(
    field: StyledField,
    rays: Rays,
    span: Span,
    motion: Float[Tensor, "videos frames width"],
    backdrop: Backdrop | None,
    draws: Draws | None = None,
    *,
    separate: int = 0,
) -> Rendered:
    """Render rays.

    Args:
        field: the foreground.
        rays: with origins and directions [videos, frames, rays, 3], the directions of depth 1.
        span: where they are sampled.
        motion: of each frame.
        backdrop: the background along the same rays; None for a foreground whose last sample is opaque.
        draws: random numbers; None for even sampling without noise.
        separate: how many of the last rays are wanted sample by sample.
    """
    length = torch.linalg.vector_norm(rays.directions, dim=-1, keepdim=True)
    opaque = backdrop is None
    even = torch.linspace(0, 1, span.samples, device=length.device)
    coarse = _coarse(even, rays.origins.shape[:3], None if draws is None else draws.jitter)
    coarse_hidden, coarse_density = _evaluate(field, rays, span, coarse, motion, None if draws is None else draws.noise)
    weights, _ = point_weights(coarse_density, span.depths(coarse) * length, opaque_end=opaque)
    uniforms = even if draws is None else draws.uniforms[:, None]
    middles = (coarse[..., :-1] + coarse[..., 1:]) / 2
    fine = invert_distribution(middles, weights[..., 1:-1].detach(), uniforms.expand(coarse.shape))
    fine_hidden, fine_density = _evaluate(field, rays, span, fine, motion, None if draws is None else draws.fine_noise)

    places, order = torch.cat([fine, coarse], dim=-1).sort(dim=-1)
    density = torch.cat([fine_density, coarse_density], dim=-1).gather(-1, order)
    depths = span.depths(places)
    weights, transmittance = point_weights(density, depths * length, opaque_end=opaque)
    # Hidden features stay where they are: their weights go back to the unsorted order, a hundred times less to move.
    unsorted = torch.zeros_like(weights).scatter(-1, order, weights)
    hiddens, shares = (fine_hidden, coarse_hidden), unsorted.split(span.samples, dim=-1)
    view = field.view(rays.directions)
    features, color = _composite(field, hiddens, shares, view)
    if backdrop is not None:
        reaching = transmittance[..., None]
        features, color = features + reaching * backdrop.features, color + reaching * backdrop.color
    samples = None
    if separate:
        parts = [_separate(field, hidden[:, :, -separate:], view, separate) for hidden in hiddens]
        each, each_color = (torch.cat(column, dim=3) for column in zip(*parts, strict=True))
        samples = Samples(each_color, each, unsorted[:, :, -separate:])
        if backdrop is not None and backdrop.samples is not None:
            samples = samples.before(backdrop.samples, transmittance[:, :, -separate:])
    background_weights = weights[..., :0] if backdrop is None else backdrop.weights
    return Rendered(color, features, depths, weights, background_weights, transmittance, samples)


def _coarse(
    even: Float[Tensor, " samples"], frames: Sequence[int], jitter: Float[Tensor, "videos rays samples"] | None
) -> Float[Tensor, "videos frames rays samples"]:
    """Even samples, each moved within the middles to its neighbours (stratified sampling)."""
    if jitter is None:
        return even.expand(*frames, -1)
    middles = (even[1:] + even[:-1]) / 2
    low, high = torch.cat([even[:1], middles]), torch.cat([middles, even[-1:]])
    return (low + (high - low) * jitter)[:, None].expand(*frames, -1)


def _evaluate(
    field: StyledField,
    rays: Rays,
    span: Span,
    places: Float[Tensor, "videos frames rays samples"],
    motion: Float[Tensor, "videos frames width"],
    noise: Float[Tensor, "videos rays samples"] | None,
) -> tuple[Float[Tensor, "videos frames rays samples width"], Float[Tensor, "videos frames rays samples"]]:
    """Hidden features and density of samples."""
    points = rays.origins[..., None, :] + span.depths(places)[..., None] * rays.directions[..., None, :]
    hidden = field.hidden(points.flatten(2, 3), motion)
    raw = field.raw_density(hidden).unflatten(2, places.shape[2:])
    density = F.relu(raw if noise is None else raw + noise[:, None])
    return hidden.unflatten(2, places.shape[2:]), density


def _composite(
    field: StyledField,
    hiddens: Sequence[Float[Tensor, "videos frames rays samples width"]],
    shares: Sequence[Float[Tensor, "videos frames rays samples"]],
    view: Float[Tensor, "videos frames rays channels"] | None,
) -> tuple[Float[Tensor, "videos frames rays channels"], Float[Tensor, "videos frames rays 3"]]:
    """Features and colour of rays. Sums over samples come before linear layers, which then see rays only."""
    pairs = list(zip(shares, hiddens, strict=True))
    total = torch.stack([share.sum(dim=-1, keepdim=True) for share in shares]).sum(dim=0)
    hidden = torch.stack([_weighted(share, part) for share, part in pairs]).sum(dim=0)
    before = features = field.feature(hidden) + field.features[1] * (total - 1)
    if view is not None:
        seen = view[..., None, :]
        parts = [_weighted(share, field.before_color(_features(field, part), seen)) for share, part in pairs]
        before = torch.stack(parts).sum(dim=0)
    return features, field.color(before) + field.network.to_rgb.bias * (total - 1)


def _weighted(
    shares: Float[Tensor, "*rays samples"], values: Float[Tensor, "*rays samples channels"]
) -> Float[Tensor, "*rays channels"]:
    return (shares[..., None, :] @ values).squeeze(-2)


def _features(
    field: StyledField, hidden: Float[Tensor, "videos frames rays samples width"]
) -> Float[Tensor, "videos frames rays samples channels"]:
    return field.feature(hidden.flatten(2, 3)).unflatten(2, hidden.shape[2:4])


def _separate(
    field: StyledField,
    hidden: Float[Tensor, "videos frames rays samples width"],
    view: Float[Tensor, "videos frames all_rays channels"] | None,
    rays: int,
) -> tuple[Float[Tensor, "videos frames rays samples channels"], Float[Tensor, "videos frames rays samples 3"]]:
    """Features and colour of each sample of the last rays."""
    features = _features(field, hidden)
    seen = None if view is None else view[:, :, -rays:, None]
    return features, field.color(field.before_color(features, seen))
