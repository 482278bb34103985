"""Volume rendering with importance sampling (Mildenhall et al., 2020, "NeRF", sections 4 and 5.2; EG3D's variant).

Depths are distances along unit rays. Between neighbouring samples, density and colour are the means of the two ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import Rays

DENSITY_SHIFT = -1.0
"""Added to raw densities before the softplus, so that an untrained volume starts nearly empty."""

RAY_CHUNK = 1024
"""Rays rendered at a time without gradients: large enough to keep the cores busy, small enough to stay in cache."""

Field = Callable[
    [Float[Tensor, "batch points 3"]],
    tuple[Float[Tensor, "batch points 1"], Float[Tensor, "batch points channels"]],
]
"""From world points to raw density and colour."""


@dataclass(frozen=True)
class RaySampling:
    """The random numbers of a render; the defaults make it deterministic.

    Attributes:
        jitter: in [0, 1), moves each coarse depth within its interval; None: no jitter.
        uniforms: in [0, 1), one per importance sample; None: evenly spaced, ``linspace(0, 1, samples)``.
    """

    jitter: Float[Tensor, "batch rays samples"] | None = None
    uniforms: Float[Tensor, "batch rays samples"] | None = None

    def __getitem__(self, index: tuple[slice, slice]) -> RaySampling:
        """Part of the batch and of the rays."""
        jitter = None if self.jitter is None else self.jitter[index]
        return RaySampling(jitter, None if self.uniforms is None else self.uniforms[index])


EVEN = RaySampling()
"""No jitter, evenly spaced importance samples."""


@dataclass(frozen=True)
class DepthRange:
    """Where rays are sampled.

    Attributes:
        start: depth of the first sample, for all rays or for those of each image.
        end: depth of the last.
        samples: coarse samples per ray, at least 4.
        importance_samples: further samples where the coarse ones found density.
        spacing: coarse samples evenly spaced in ``depth`` or in ``disparity`` (1 / depth).
    """

    start: float | Float[Tensor, "batch 1 1"]
    end: float | Float[Tensor, "batch 1 1"]
    samples: int
    importance_samples: int
    spacing: Literal["depth", "disparity"] = "depth"

    @classmethod
    def around_origin(
        cls, camera: Camera, side: float | Float[Tensor, "batch 1 1"], samples: int, importance_samples: int
    ) -> DepthRange:
        """The distance of the origin's plane from each camera, less and plus half of ``side``.

        Args:
            camera: cameras of batch shape [batch].
            side: of the cube around the origin.
            samples: coarse samples per ray.
            importance_samples: further samples.
        """
        position, forward = camera.cam2world[:, :3, 3], camera.cam2world[:, :3, 2]
        distance = (position * forward).sum(dim=-1).abs()[:, None, None]
        return cls(distance - side / 2, distance + side / 2, samples, importance_samples)


@dataclass(frozen=True)
class RenderedRays:
    """What is seen along rays.

    Attributes:
        color: composited colours.
        depth: expected depth, not a number where nothing is seen; see :func:`bounded_depth`.
        position: expected world point; light that leaves the volume counts for the last interval.
        opacity: in [0, 1], how much of the light was stopped.
        depths: depths of all samples, sorted.
        weights: share of the light stopped between neighbouring depths; they sum to ``opacity``.
    """

    color: Float[Tensor, "batch rays channels"]
    depth: Float[Tensor, "batch rays 1"]
    position: Float[Tensor, "batch rays 3"]
    opacity: Float[Tensor, "batch rays 1"]
    depths: Float[Tensor, "batch rays all_samples"]
    weights: Float[Tensor, "batch rays all_samples-1"]

    @classmethod
    def cat(cls, parts: list[RenderedRays], dim: int) -> RenderedRays:
        """Join renders along the batch (0) or the rays (1)."""
        names = ("color", "depth", "position", "opacity", "depths", "weights")
        return cls(*(torch.cat([getattr(part, name) for part in parts], dim=dim) for name in names))


def coarse_depths(
    span: DepthRange, like: Float[Tensor, "batch rays _"], jitter: Float[Tensor, "batch rays samples"] | None = None
) -> Float[Tensor, "batch rays samples"]:
    """Evenly spaced depths, each moved by ``jitter`` times the spacing (stratified sampling; NeRF, equation 2).

    As in EG3D the intervals start at the samples, so that jitter carries the last one beyond ``span.end``.
    """
    steps = torch.linspace(0, 1, span.samples, device=like.device, dtype=like.dtype).expand(*like.shape[:2], -1)
    if jitter is not None:
        steps = steps + jitter / (span.samples - 1)
    if span.spacing == "disparity":
        return 1 / (1 / span.start * (1 - steps) + 1 / span.end * steps)
    return span.start + (span.end - span.start) * steps


def interval_weights(
    densities: Float[Tensor, "batch rays samples"], depths: Float[Tensor, "batch rays samples"]
) -> Float[Tensor, "batch rays samples-1"]:
    """Share of a ray's light stopped in each interval: alpha times transmittance (NeRF, equation 3).

    Args:
        densities: raw densities at sorted depths.
        depths: the depths.
    """
    density = F.softplus((densities[..., :-1] + densities[..., 1:]) / 2 + DENSITY_SHIFT)
    alpha = 1 - torch.exp(-density * depths.diff(dim=-1))
    # The small constant keeps the gradient of the product finite behind an opaque interval.
    passed = torch.cumprod(1 - alpha + 1e-10, dim=-1)
    return alpha * torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=-1)


def sample_weights(weights: Float[Tensor, "batch rays intervals"]) -> Float[Tensor, "batch rays intervals+1"]:
    """Weights of the samples that give the same sum as interval weights do with the means of interval ends."""
    return (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) / 2


def composite(
    weights: Float[Tensor, "batch rays intervals"], values: Float[Tensor, "batch rays intervals+1 channels"]
) -> Float[Tensor, "batch rays channels"]:
    """Sum over intervals of weight times the mean of the values at both ends (NeRF, equation 3)."""
    return (sample_weights(weights)[..., None, :] @ values).squeeze(-2)


def expected_depth(
    weights: Float[Tensor, "batch rays intervals"], depths: Float[Tensor, "batch rays intervals+1"]
) -> Float[Tensor, "batch rays 1"]:
    """Mean depth under the weights; not a number where all weights are zero, see :func:`bounded_depth`."""
    stopped = weights.sum(dim=-1, keepdim=True)
    seen = stopped > 0
    # Dividing by 1 where nothing is seen keeps NaN out of the gradients of what is masked later.
    depth = composite(weights, depths[..., None]) / torch.where(seen, stopped, torch.ones_like(stopped))
    return torch.where(seen, depth, torch.full_like(depth, float("nan")))


def bounded_depth(
    depth: Float[Tensor, "batch rays 1"], depths: Float[Tensor, "batch rays samples"]
) -> Float[Tensor, "batch rays 1"]:
    """Depth clamped to the least and largest depth of the whole batch; the largest where it is not a number."""
    return depth.nan_to_num(float("inf")).clamp(depths.min(), depths.max())


def filled(weights: Float[Tensor, "batch rays intervals"]) -> Float[Tensor, "batch rays intervals"]:
    """Weights that sum to 1: light that leaves the volume counts for the last interval."""
    return torch.cat([weights[..., :-1], weights[..., -1:] + 1 - weights.sum(dim=-1, keepdim=True)], dim=-1)


@torch.no_grad()
def importance_depths(
    depths: Float[Tensor, "batch rays samples"],
    weights: Float[Tensor, "batch rays samples-1"],
    uniforms: Float[Tensor, "batch rays importance_samples"],
) -> Float[Tensor, "batch rays importance_samples"]:
    """Depths drawn from the density that the coarse samples found, by inverting its distribution (NeRF, section 5.2).

    Weights are widened (maximum and mean of neighbours, as in Mip-NeRF 360) and lifted by 0.01. As in EG3D the last
    interval is never reached.

    Args:
        depths: coarse depths, sorted.
        weights: weights between them.
        uniforms: numbers in [0, 1].

    Returns:
        Depths in the order of ``uniforms``.
    """
    batch, rays, _ = weights.shape
    flat = weights.reshape(batch * rays, 1, -1)
    smooth = F.avg_pool1d(F.max_pool1d(flat, 2, 1, padding=1), 2, 1).reshape(batch, rays, -1) + 0.01
    return invert_distribution((depths[..., :-1] + depths[..., 1:]) / 2, smooth[..., 1:-1], uniforms)


@torch.no_grad()
def invert_distribution(
    edges: Float[Tensor, "*rays bins+1"], weights: Float[Tensor, "*rays bins"], uniforms: Float[Tensor, "*rays samples"]
) -> Float[Tensor, "*rays samples"]:
    """Places drawn from a distribution that is constant within each bin (NeRF, section 5.2).

    Args:
        edges: ascending edges of the bins.
        weights: of the bins, at least 0; 1e-5 is added to each.
        uniforms: numbers in [0, 1].

    Returns:
        Places in the order of ``uniforms``; within a bin of a share below 1e-5, close to its lower edge.
    """
    pdf = weights + 1e-5
    cdf = F.pad((pdf / pdf.sum(dim=-1, keepdim=True)).cumsum(dim=-1), (1, 0))
    index = torch.searchsorted(cdf, uniforms.contiguous(), right=True)
    below, above = (index - 1).clamp(min=0), index.clamp(max=cdf.shape[-1] - 1)
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    width = high - low
    share = (uniforms - low) / torch.where(width < 1e-5, torch.ones_like(width), width)
    lower = edges.gather(-1, below)
    return lower + share * (edges.gather(-1, above) - lower)


def point_weights(
    density: Float[Tensor, "*rays samples"], depths: Float[Tensor, "*rays samples"], *, opaque_end: bool
) -> tuple[Float[Tensor, "*rays samples"], Float[Tensor, "*rays"]]:
    """Share of a ray's light stopped at each sample, NeRF's own quadrature (NeRF, equation 3).

    A sample's density holds up to the next sample. Other than :func:`interval_weights`, which takes means of both ends.

    Args:
        density: at least 0, per unit of ``depths``.
        depths: ascending.
        opaque_end: whether the last sample stops all the light that reaches it, or none.

    Returns:
        The weights, and the share of light that reaches the last sample.
    """
    alpha = 1 - torch.exp(-density[..., :-1] * depths.diff(dim=-1))
    last = torch.full_like(density[..., :1], float(opaque_end))
    passed = torch.cumprod(1 - alpha + 1e-10, dim=-1)  # the constant keeps gradients finite behind an opaque sample
    reaching = torch.cat([torch.ones_like(last), passed], dim=-1)
    return torch.cat([alpha, last], dim=-1) * reaching, reaching[..., -1]


def render_rays(
    field: Field, rays: Rays, span: DepthRange, sampling: RaySampling = EVEN, *, chunk: int | None = None
) -> RenderedRays:
    """Render rays through a field: coarse samples, importance samples, compositing of both (NeRF, section 5.2).

    The field is asked once for each sample.

    Args:
        field: density and colour of points; called with points [batch, rays * samples, 3].
        rays: the rays.
        span: where they are sampled.
        sampling: random numbers.
        chunk: rays rendered at a time, to keep memory small; None renders all together.
    """
    if chunk is None:
        return _render_together(field, rays, span, sampling)
    parts = []
    for start in range(0, rays.origins.shape[1], chunk):
        part = (slice(None), slice(start, start + chunk))
        parts.append(_render_together(field, rays[part], span, sampling[part]))
    return RenderedRays.cat(parts, dim=1)


def _render_together(field: Field, rays: Rays, span: DepthRange, sampling: RaySampling) -> RenderedRays:
    coarse = coarse_depths(span, rays.origins, sampling.jitter)
    coarse_density, coarse_color = _evaluate(field, rays, coarse)
    uniforms = sampling.uniforms
    if uniforms is None:
        even = torch.linspace(0, 1, span.importance_samples, device=coarse.device, dtype=coarse.dtype)
        uniforms = even.expand(*coarse.shape[:2], -1)
    fine = importance_depths(coarse, interval_weights(coarse_density.detach(), coarse), uniforms)
    fine_density, fine_color = _evaluate(field, rays, fine)

    depths, order = torch.cat([coarse, fine], dim=-1).sort(dim=-1)
    densities = torch.cat([coarse_density, fine_density], dim=-1).gather(-1, order)
    weights = interval_weights(densities, depths)
    # Colours stay where they are: their weights go back to the unsorted order, 32 times less to move.
    unsorted = torch.zeros_like(depths).scatter(-1, order, sample_weights(weights))
    coarse_share, fine_share = unsorted.split([span.samples, span.importance_samples], dim=-1)
    color = (coarse_share[..., None, :] @ coarse_color + fine_share[..., None, :] @ fine_color).squeeze(-2)
    last = composite(filled(weights), depths[..., None])
    return RenderedRays(
        color=color,
        depth=expected_depth(weights, depths),
        position=rays.origins + last * rays.directions,
        opacity=weights.sum(dim=-1, keepdim=True),
        depths=depths,
        weights=weights,
    )


def _evaluate(
    field: Field, rays: Rays, depths: Float[Tensor, "batch rays samples"]
) -> tuple[Float[Tensor, "batch rays samples"], Float[Tensor, "batch rays samples channels"]]:
    samples = depths.shape[-1]
    density, color = field(rays.at(depths).flatten(1, 2))
    return density.squeeze(-1).unflatten(1, (-1, samples)), color.unflatten(1, (-1, samples))
