import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.triplane import EG3D_AXES, TriplaneDecoder, sample_planes, triplane_features


def ramp(axis: int, size: int = 64) -> torch.Tensor:
    """One channel whose value at a grid coordinate is that coordinate along width (0) or height (1)."""
    centres = (torch.arange(size) + 0.5) * 2 / size - 1
    return centres.expand(size, size) if axis == 0 else centres[:, None].expand(size, size)


@pytest.mark.parametrize("box_warp", [1.0, 0.6])
def test_planes_see_the_axes_they_are_said_to(box_warp: float) -> None:
    points = (torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.9 * box_warp
    for side in (0, 1):
        planes = ramp(side).expand(1, 3, 1, 64, 64)
        found = sample_planes(planes, points, box_warp)[..., 0]
        for plane, axes in enumerate(EG3D_AXES):
            torch.testing.assert_close(found[0, plane], points[0, :, axes[side]] * 2 / box_warp, rtol=1e-4, atol=1e-4)


def test_no_plane_sees_y_and_z() -> None:
    """EG3D's slip, which released weights rely on: the third plane is the second one transposed."""
    assert EG3D_AXES == ((0, 1), (0, 2), (2, 0))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 17), st.floats(0.5, 2), st.booleans(), st.integers(0, 99))
def test_gathering_texels_equals_grid_sampling(batch, channels, size, box_warp, innermost, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    planes = torch.randn(batch, 3 * channels, size, size, generator=generator)
    if innermost:
        planes = planes.contiguous(memory_format=torch.channels_last)
    planes = planes.unflatten(1, (3, channels))
    points = (torch.rand(batch, 30, 3, generator=generator) - 0.5) * 3  # inside, on the border and far outside
    expected = sample_planes(planes, points, box_warp).mean(dim=1)
    torch.testing.assert_close(triplane_features(planes.requires_grad_(), points, box_warp), expected)
    with torch.no_grad():
        torch.testing.assert_close(triplane_features(planes, points, box_warp), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_colour_stays_within_its_margin() -> None:
    torch.manual_seed(0)
    density, color = TriplaneDecoder(4, 8, 5)(torch.randn(2, 100, 4) * 1000)
    assert density.shape == (2, 100, 1) and color.shape == (2, 100, 5)
    assert float(color.min()) == pytest.approx(-0.001) and float(color.max()) == pytest.approx(1.001)


def test_points_are_decoded_alike_with_and_without_gradients() -> None:
    """Without them they are decoded piece by piece."""
    torch.manual_seed(0)
    decoder, features = TriplaneDecoder(4, 8, 5), torch.randn(2, 10_000, 4)
    expected = decoder(features)
    with torch.no_grad():
        for found, whole in zip(decoder(features), expected, strict=True):
            torch.testing.assert_close(found, whole)
