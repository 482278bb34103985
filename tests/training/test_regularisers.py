import math

import pytest
import torch
from torch import nn

from portraitzoo.training.adversarial import discriminator_loss, generator_loss
from portraitzoo.training.gradients import sanitise_gradients, training_only
from portraitzoo.training.optimisers import lazy_adam
from portraitzoo.training.regularisers import density_variation, gradient_penalty


def test_gradient_penalty_of_a_linear_score_is_its_squared_weight():
    weight = torch.randn(3, 5, 5)
    image = torch.randn(4, 3, 5, 5, requires_grad=True)
    score = (image * weight).sum(dim=(1, 2, 3))[:, None]
    penalty = gradient_penalty(score, [image])
    assert torch.allclose(penalty, weight.square().sum().expand(4), rtol=1e-5)


def test_gradient_penalty_adds_its_inputs_and_trains_the_weights():
    conv = nn.Conv2d(3, 2, 3)
    first, second = (torch.randn(2, 3, 6, 6, requires_grad=True) for _ in range(2))
    score = (conv(first).square().sum(dim=(1, 2, 3)) + conv(second).square().sum(dim=(1, 2, 3)))[:, None]
    both = gradient_penalty(score, [first, second])
    assert torch.allclose(both, gradient_penalty(score, [first]) + gradient_penalty(score, [second]), rtol=1e-5)
    both.sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.abs().sum() > 0


def test_a_fooled_discriminator_costs_the_generator_nothing():
    assert generator_loss(torch.full((3, 1), 50.0)) < 1e-6
    assert generator_loss(torch.zeros(3, 1)) == pytest.approx(math.log(2))
    assert discriminator_loss(torch.full((3, 1), -50.0), torch.full((2, 1), 50.0)) < 1e-6


def test_constant_density_has_no_variation():
    density = torch.full((2, 7, 1), 3.0)
    assert density_variation(density, density) == 0
    assert density_variation(density, density + 2) == pytest.approx(2)


def test_gradients_become_finite():
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([math.nan, math.inf, -math.inf, 2.5])
    sanitise_gradients([parameter, nn.Parameter(torch.zeros(2))])
    assert parameter.grad.tolist() == [0.0, 1e5, -1e5, 2.5]


def test_only_the_trained_side_requires_gradients():
    trained, resting = nn.Linear(2, 2), nn.Linear(2, 2)
    with training_only([trained], [resting]):
        resting(trained(torch.ones(1, 2))).sum().backward()
        assert resting.weight.grad is None
        assert trained.weight.grad is not None
    assert resting.weight.requires_grad


def test_lazy_correction_gives_the_published_rates():
    parameter = [nn.Parameter(torch.zeros(1))]
    generator, discriminator = lazy_adam(parameter, 0.0025, 4), lazy_adam(parameter, 0.002, 16)
    assert generator.defaults["lr"] == pytest.approx(0.002)
    assert generator.defaults["betas"] == (0.0, pytest.approx(0.9919919678228657))
    assert discriminator.defaults["lr"] == pytest.approx(0.0018823529411764706)
    assert discriminator.defaults["betas"] == (0.0, pytest.approx(0.9905854573074332))
