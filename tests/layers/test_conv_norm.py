import pytest
import torch
import torch.nn.functional as F
from torch import nn

from portraitzoo.layers.conv_norm import ConvNorm, FixedNorm, fold_batch_norms


@torch.no_grad()
def unit(conv: nn.Conv2d | nn.Conv3d) -> tuple[ConvNorm, nn.Module]:
    """A convolution with a norm that does something, and the same made of PyTorch's own layers."""
    ours = ConvNorm(conv)
    assert isinstance(ours.bn, FixedNorm)
    ours.bn.running_mean.normal_()
    ours.bn.running_var.uniform_(0.5, 2)
    ours.bn.weight.normal_()
    theirs = (nn.BatchNorm2d if isinstance(conv, nn.Conv2d) else nn.BatchNorm3d)(conv.out_channels).eval()
    theirs.load_state_dict(ours.bn.state_dict(), strict=False)
    return ours, nn.Sequential(conv, theirs)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(96, 100, 3, padding=1, bias=False),  # large enough for Winograd's way
        nn.Conv2d(96, 100, 3, padding=1),
        nn.Conv2d(96, 100, 3, bias=False),
        nn.Conv2d(96, 100, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(96, 100, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(96, 96, 3, padding=1, groups=96, bias=False),
        nn.Conv2d(96, 100, 3, padding=1, padding_mode="reflect", bias=False),
        nn.Conv2d(96, 100, (1, 3), padding=(0, 1), bias=False),
        nn.Conv2d(96, 100, 2, padding=1, bias=False),
        nn.Conv2d(96, 100, 1, bias=False),
        nn.Conv2d(96, 100, 5, padding="same", bias=False),
        nn.Conv3d(96, 8, 3, padding=1, bias=False),
    ],
    ids=str,
)
def test_any_convolution_is_pytorchs(conv):
    torch.manual_seed(0)
    ours, theirs = unit(conv)
    x = torch.randn(2, 96, 36, 32) if isinstance(conv, nn.Conv2d) else torch.randn(1, 96, 3, 12, 8)
    channels_last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d  # has ways of its own
    with torch.no_grad():
        expected = theirs(x)
        for found in (ours(x), fold_batch_norms(ours)(x), ours(x.contiguous(memory_format=channels_last))):
            assert found.shape == expected.shape
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradients_reach_the_input():
    ours, theirs = unit(nn.Conv2d(96, 100, 3, padding=1, bias=False))
    x = torch.randn(1, 96, 32, 32, requires_grad=True)
    found, expected = (torch.autograd.grad(F.relu(network(x)).sum(), x)[0] for network in (ours, theirs))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_training_mode_makes_no_difference():
    ours, _ = unit(nn.Conv2d(3, 4, 3, padding=1))
    x = torch.randn(2, 3, 8, 8)
    assert ours.train()(x).equal(ours.eval()(x))
