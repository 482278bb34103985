import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.layers.linear import FullyConnected, Linear, normalise_second_moment


@settings(deadline=None)
@given(st.integers(1, 64), st.floats(0.1, 100))
def test_normalised_vectors_have_mean_square_one_whatever_their_length(width: int, scale: float) -> None:
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(width)).abs().add(0.1) * scale
    torch.testing.assert_close(normalise_second_moment(x).square().mean(dim=1), torch.ones(5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
@torch.no_grad()
def test_fresh_layer_keeps_unit_variance_whatever_its_learning_rate(lr_multiplier: float) -> None:
    torch.manual_seed(0)
    layer = FullyConnected(256, 512, lr_multiplier=lr_multiplier)
    y = layer(torch.randn(64, 256))
    assert float(y.var()) == pytest.approx(1, rel=0.1)


@torch.no_grad()
def test_lrelu_keeps_the_second_moment_and_bias_starts_as_told() -> None:
    torch.manual_seed(0)
    y = FullyConnected(256, 512, activation="lrelu")(torch.randn(64, 256))
    assert float(y.square().mean()) == pytest.approx(1.04, rel=0.1)  # (1 + 0.2^2) / 2 * sqrt(2)^2
    assert FullyConnected(4, 3, bias_init=1.0)(torch.zeros(1, 4)).tolist() == [[1.0, 1.0, 1.0]]


def test_lr_multiplier_slows_learning_of_weight_and_bias() -> None:
    """One step of plain gradient descent moves the applied weight and bias by the multiplier's square."""
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    moved = []
    for lr_multiplier in (1.0, 0.5):
        torch.manual_seed(1)
        layer = FullyConnected(16, 4, lr_multiplier=lr_multiplier)
        before = layer(x).detach()
        layer(x).sum().backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter -= 0.1 * parameter.grad
        moved.append((layer(x) - before).detach())
    torch.testing.assert_close(moved[1], moved[0] * 0.25)
    assert math.isfinite(float(moved[0].sum())) and float(moved[0].abs().max()) > 0


@pytest.mark.parametrize("shape", [(1, 1024, 24), (2, 520, 24), (3, 100, 24)])
def test_a_linear_layer_is_the_same_with_and_without_gradients(shape: tuple[int, ...]) -> None:
    """Without them many rows go another way: shapes whose rows are sixteen equal parts, and one that does not."""
    torch.manual_seed(0)
    layer, x = Linear(24, 40), torch.randn(shape)
    expected = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer(x.flip(-1).mT.contiguous().mT.flip(-1)), expected)
