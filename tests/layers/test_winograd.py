import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.layers import winograd


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 20),
    tiles=st.integers(1, 9),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pad_rows=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    batch=st.integers(1, 2),
    group=st.sampled_from([1, 10, 1 << 20]),
)
def test_equals_the_direct_convolution(height, tiles, channels, pad_rows, batch, group) -> None:
    generator = torch.Generator().manual_seed(height)
    height = max(height, 3 - sum(pad_rows))
    x = torch.randn(batch, channels[0], height, 4 * tiles, generator=generator)
    weight = torch.randn(channels[1], channels[0], 3, 3, generator=generator)
    bias = torch.randn(channels[1], generator=generator)
    expected = F.conv2d(F.pad(x, (1, 1, *pad_rows)), weight, bias)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(winograd, "GROUP", group)  # tiles in groups of one, of a few, or all at once
        actual = winograd.conv3x3(x, weight, bias, pad_rows=pad_rows)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_rounding_errors_stay_near_those_of_the_direct_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 16, 32, generator=generator)
    weight = torch.randn(256, 256, 3, 3, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    with torch.no_grad():
        error = (winograd.conv3x3(x, weight) - exact).square().mean().sqrt() / exact.std()
    assert float(error) < 1e-5


def test_is_left_out_where_gradients_are_needed() -> None:
    x, weight = torch.randn(1, 128, 8, 64), torch.randn(128, 128, 3, 3)
    assert not winograd.pays_off(x, weight)
    with torch.no_grad():
        assert winograd.pays_off(x, weight)
        assert not winograd.pays_off(x[..., :62], weight)
        assert not winograd.pays_off(x.double(), weight.double())
