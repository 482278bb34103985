import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.layers.resampling import binomial_filter, binomial_kernel, resize, upsample2d


def test_kernel_is_binomial_and_sums_to_its_gain() -> None:
    kernel = binomial_kernel(torch.zeros(1), gain=4.0)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    torch.testing.assert_close(kernel, torch.outer(taps, taps) * 4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_upsampling_is_zero_insertion_and_filter(channels: int, height: int, width: int) -> None:
    x = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(height * 10 + width))
    inserted = torch.zeros(2, channels, 2 * height, 2 * width)
    inserted[:, :, ::2, ::2] = x
    kernel = binomial_kernel(x, gain=4.0).expand(channels, 1, 4, 4)
    expected = F.conv2d(F.pad(inserted, (2, 1, 2, 1)), kernel, groups=channels)
    torch.testing.assert_close(upsample2d(x), expected)


def test_upsampling_has_second_derivatives() -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: upsample2d(x) ** 2, x)


def test_filter_keeps_a_constant_image_inside() -> None:
    y = binomial_filter(torch.full((1, 3, 9, 9), 2.0), padding=2)
    assert y.shape == (1, 3, 10, 10)
    torch.testing.assert_close(y[:, :, 2:-2, 2:-2], torch.full((1, 3, 6, 6), 2.0))


def test_resize_averages_when_it_shrinks_and_returns_the_same_size_untouched() -> None:
    stripes = torch.tensor([-1.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    assert float(resize(stripes, 8)[..., 1:-1].abs().max()) < 0.05
    assert resize(stripes, 64) is stripes
