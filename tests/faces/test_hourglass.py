import pytest
import torch

from portraitzoo.faces.hourglass import HierarchicalBlock, Hourglass


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(autouse=True)
def weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("channels", [(4, 4), (4, 8)], ids=["same", "wider"])
def test_gradients_of_blocks_are_right(channels):
    block = HierarchicalBlock(*channels).double()
    assert torch.autograd.gradcheck(block, numbers(2, 4, 3, 3).requires_grad_())


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_gradients_of_hourglasses_are_right(pooling, upsampling):
    network = Hourglass(4, pooling, upsampling, depth=2).double()
    assert torch.autograd.gradcheck(network, numbers(1, 4, 4, 4).requires_grad_())


def test_the_input_is_left_alone():
    x = numbers(1, 4, 16, 16)
    Hourglass(4, "average", "nearest").double()(x)
    assert x.equal(numbers(1, 4, 16, 16))


def test_far_pixels_reach_each_other_through_the_neck():
    x = numbers(1, 4, 32, 32)
    changed = x.clone()
    changed[..., -1, -1] += 1
    network = Hourglass(4, "average", "nearest").double()
    assert not network(x)[..., 0, 0].equal(network(changed)[..., 0, 0])
