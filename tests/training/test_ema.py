import torch
from torch import nn

from portraitzoo.training.ema import averaged_copy, update_average


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_the_copy_is_apart_and_needs_no_gradients():
    trained = network()
    average = averaged_copy(trained)
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    with torch.no_grad():
        trained[0].weight.add_(1)
    assert not torch.equal(average[0].weight, trained[0].weight)


def test_parameters_move_by_the_formula_and_buffers_are_copied():
    trained = network()
    average = averaged_copy(trained)
    old = average[0].weight.clone()
    with torch.no_grad():
        trained[0].weight.add_(torch.randn(4, 3))
    trained[1].running_mean.fill_(7.0)
    update_average(average, trained, 0.75)
    assert torch.allclose(average[0].weight, 0.75 * old + 0.25 * trained[0].weight, atol=1e-6)
    assert torch.equal(average[1].running_mean, trained[1].running_mean)
    assert torch.equal(average[1].num_batches_tracked, trained[1].num_batches_tracked)


def test_beta_zero_takes_the_network_as_it_is():
    trained = network()
    average = averaged_copy(trained)
    with torch.no_grad():
        trained[0].weight.mul_(3)
    update_average(average, trained, 0.0)
    assert torch.allclose(average[0].weight, trained[0].weight)
