import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import cast_rays
from portraitzoo.rendering.volume import (
    DepthRange,
    RaySampling,
    bounded_depth,
    coarse_depths,
    composite,
    expected_depth,
    filled,
    importance_depths,
    interval_weights,
    invert_distribution,
    point_weights,
    render_rays,
)

SPAN = DepthRange(2.25, 3.3, 24, 24)


def ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """A dense ball of radius 0.3 around the origin, coloured by position."""
    inside = points.norm(dim=-1, keepdim=True) < 0.3
    return torch.where(inside, 1e3, -1e3), points + 0.5


def rays_of(resolution: int = 8, batch: int = 1):
    return cast_rays(Camera.look_at(torch.linspace(-0.3, 0.3, batch), 0.1, target=(0.0, 0.0, 0.0)), resolution)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.floats(-20, 20), st.integers(0, 99))
def test_weights_share_out_the_light(samples: int, mean: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    densities = torch.randn(1, 5, samples, generator=generator) * 5 + mean
    depths = torch.rand(1, 5, samples, generator=generator).sort().values
    weights = interval_weights(densities, depths)
    assert (weights >= 0).all() and (weights.sum(dim=-1) <= 1 + 1e-5).all()
    torch.testing.assert_close(filled(weights).sum(dim=-1), torch.ones(1, 5))
    values = torch.randn(1, 5, samples, 3, generator=generator)
    means = (values[:, :, :-1] + values[:, :, 1:]) / 2
    torch.testing.assert_close(composite(weights, values), (weights[..., None] * means).sum(dim=2))


def test_constant_density_absorbs_exponentially() -> None:
    """Beer-Lambert: behind depth d of density s the light left is exp(-s d)."""
    depths = torch.linspace(0, 2, 50).expand(1, 1, 50)
    raw = torch.full_like(depths, 1.7)
    density = torch.nn.functional.softplus(torch.tensor(0.7))
    opacity = interval_weights(raw, depths).sum()
    torch.testing.assert_close(opacity, 1 - torch.exp(-2 * density), rtol=1e-4, atol=1e-5)


def test_empty_rays_get_the_largest_depth_of_the_batch() -> None:
    depths = torch.tensor([[[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]])
    weights = torch.tensor([[[0.0, 0.0], [0.5, 0.0]]])
    assert bounded_depth(expected_depth(weights, depths), depths).flatten().tolist() == [4.0, 2.5]


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 20), st.sampled_from(["depth", "disparity"]), st.integers(0, 99))
def test_jitter_keeps_each_depth_in_its_own_interval(samples: int, spacing: str, seed: int) -> None:
    span = DepthRange(2.0, 4.0, samples, 0, spacing)
    jitter = torch.rand(2, 3, samples, generator=torch.Generator().manual_seed(seed))
    like = torch.zeros(2, 3, 3)
    even, moved = coarse_depths(span, like), coarse_depths(span, like, jitter)
    torch.testing.assert_close(even[..., [0, -1]], torch.tensor([2.0, 4.0]).expand(2, 3, 2))
    assert (moved >= even - 1e-5).all() and (moved[..., :-1] <= even[..., 1:] + 1e-5).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 20), st.integers(1, 20), st.integers(0, 99))
def test_importance_samples_lie_within_the_coarse_ones_in_the_order_of_the_uniforms(samples, count, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    depths = torch.rand(2, 3, samples, generator=generator).sort().values
    weights = torch.rand(2, 3, samples - 1, generator=generator)
    uniforms = torch.rand(2, 3, count, generator=generator).sort().values
    fine = importance_depths(depths, weights, uniforms)
    assert (fine >= depths[..., :1]).all() and (fine <= depths[..., -1:]).all()
    assert (fine.diff(dim=-1) >= -1e-6).all()


def test_importance_samples_gather_at_the_weight() -> None:
    depths = torch.linspace(0, 1, 24).expand(1, 1, 24)
    weights = torch.zeros(1, 1, 23)
    weights[..., 10] = 100.0
    fine = importance_depths(depths, weights, torch.linspace(0, 1, 101)[None, None, :-1])
    assert float(((fine - depths[..., 10]).abs() < 0.1).float().mean()) > 0.95


def test_a_ball_is_seen_where_it_is() -> None:
    rays = rays_of(resolution=9)
    rendered = render_rays(ball, rays, SPAN)
    centre, corner = 40, 0
    assert float(rendered.depth[0, centre]) == pytest.approx(2.7 - 0.3, abs=0.03)
    assert float(rendered.opacity[0, centre]) == pytest.approx(1, abs=1e-3)
    assert float(rendered.position[0, centre].norm()) == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(rendered.color[0, centre], rendered.position[0, centre] + 0.5, rtol=0, atol=0.03)
    assert float(rendered.opacity[0, corner]) == 0 and not rendered.depth[0, corner].isfinite().any()


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_change_nothing(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rays = rays_of()
    sampling = RaySampling(
        torch.rand(1, 64, SPAN.samples, generator=generator), torch.rand(1, 64, 24, generator=generator)
    )
    whole, parts = render_rays(ball, rays, SPAN, sampling), render_rays(ball, rays, SPAN, sampling, chunk=chunk)
    for name in ("color", "position", "opacity", "depths", "weights"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_each_sample_is_evaluated_once_and_randomness_is_the_callers() -> None:
    asked = []

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(points.shape[1])
        return ball(points)

    state = torch.get_rng_state()
    render_rays(field, rays_of(), SPAN)
    assert sum(asked) == 64 * (SPAN.samples + SPAN.importance_samples)
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_reach_density_and_colour() -> None:
    level, tint = torch.tensor(0.5, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    rendered = render_rays(
        lambda points: (level - points.norm(dim=-1, keepdim=True), tint * torch.ones_like(points)), rays_of(), SPAN
    )
    rendered.color.sum().backward()
    assert float(level.grad) > 0 and float(tint.grad) > 0


@pytest.mark.parametrize("opaque_end", [False, True])
def test_point_weights_and_what_passes_are_all_the_light(opaque_end: bool) -> None:
    density, depths = torch.rand(2, 7, 9) * 20, torch.rand(2, 7, 9).sort(dim=-1).values
    weights, reaching = point_weights(density, depths, opaque_end=opaque_end)
    assert (weights >= 0).all()
    total = weights.sum(dim=-1) + (0 if opaque_end else reaching)
    torch.testing.assert_close(total, torch.ones_like(total))
    empty, all_of_it = point_weights(torch.zeros(1, 5), torch.arange(5.0)[None], opaque_end=opaque_end)
    assert empty[:, :-1].abs().max() == 0 and empty[0, -1] == float(opaque_end)
    torch.testing.assert_close(all_of_it, torch.ones(1))


def test_an_even_distribution_is_inverted_to_even_places() -> None:
    places = invert_distribution(torch.linspace(2, 4, 5), torch.ones(4), torch.linspace(0, 1, 9))
    torch.testing.assert_close(places, torch.linspace(2, 4, 9))
    uniforms = torch.rand(100)
    behind = invert_distribution(torch.linspace(0, 1, 5), torch.tensor([0.0, 0.0, 1.0, 0.0]), uniforms)
    assert ((behind >= 0.5) & (behind <= 0.75)).float().mean() > 0.95
