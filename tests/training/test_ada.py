import dataclasses
import math

import pytest
import torch

from portraitzoo.training.ada import AdaDraws, AdaStrengths, adapted, augment, filter_bank

EVERYTHING = AdaStrengths(**{field.name: 1.0 for field in dataclasses.fields(AdaStrengths)})


def pictures(size: int = 32) -> torch.Tensor:
    """Smooth ones: resampling keeps nothing else."""
    places = torch.linspace(-1, 1, size)
    waves = torch.stack([torch.sin(3 * places + phase) for phase in (0.0, 1.0, 2.0)])
    return (waves[:, None] * waves[:, :, None])[None].repeat(2, 1, 1, 1)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_nothing_to_do_changes_nothing():
    assert torch.equal(augment(pictures(), AdaDraws()), pictures())
    unlikely = AdaDraws.fresh(EVERYTHING, 0.0, 32, generators(1, 2))
    assert torch.allclose(augment(pictures(), unlikely)[..., 4:-4, 4:-4], pictures()[..., 4:-4, 4:-4], atol=2e-2)


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        (AdaDraws(mirrored=torch.ones(2)), lambda image: image.flip(3)),
        (AdaDraws(quarters=torch.tensor([2.0, 2.0])), lambda image: image.flip(2, 3)),
        (AdaDraws(quarters=torch.tensor([1.0, 1.0])), lambda image: image.rot90(1, (2, 3))),
        (AdaDraws(shift=torch.tensor([[3.0, -2.0]] * 2)), lambda image: image.roll((-2, 3), (2, 3))),
        (AdaDraws(turn=torch.full((2,), math.pi), turn_after=torch.full((2,), math.pi)), lambda image: image),
    ],
)
def test_geometry_moves_pixels_where_it_says(draws, expected):
    inside = (..., slice(6, -6), slice(6, -6))
    found, wanted = augment(pictures(), draws)[inside], expected(pictures())[inside]
    assert torch.allclose(found, wanted, atol=2e-2)


def test_colors_change_as_they_say():
    brighter = augment(pictures(), AdaDraws(brightness=torch.tensor([0.25, 0.0])))
    assert torch.allclose(brighter[0], pictures()[0] + 0.25) and torch.allclose(brighter[1], pictures()[1])
    grey = augment(pictures(), AdaDraws(saturation=torch.full((2,), -50.0)))
    assert torch.allclose(grey, pictures().mean(1, keepdim=True).expand_as(grey), atol=1e-6)
    third = augment(pictures(), AdaDraws(hue=torch.full((2,), 2 * math.pi / 3)))
    assert torch.allclose(third, pictures().roll(1, 1), atol=1e-5)
    inverted = augment(pictures(), AdaDraws(inverted=torch.ones(2)))
    assert torch.allclose(inverted.mean(1), -pictures().mean(1), atol=1e-6)


def test_frequency_bands_add_up_to_the_identity():
    total = filter_bank(torch.zeros(())).sum(dim=0)
    expected = torch.zeros_like(total)
    expected[len(total) // 2] = 1
    assert torch.allclose(total, expected, atol=1e-6)


def test_a_picture_draws_the_same_in_any_company_and_gradients_pass():
    together = AdaDraws.fresh(EVERYTHING, 0.7, 32, generators(1, 2))
    alone = AdaDraws.fresh(EVERYTHING, 0.7, 32, generators(2))
    for field in dataclasses.fields(AdaDraws):
        assert torch.equal(getattr(together, field.name)[1:], getattr(alone, field.name)), field.name
    images = pictures().requires_grad_()
    augment(images, together).square().sum().backward()
    assert torch.isfinite(images.grad).all() and images.grad.abs().sum() > 0


def test_transformations_happen_as_often_as_asked():
    draws = AdaDraws.fresh(EVERYTHING, 0.3, 32, generators(*range(600)))
    assert abs(float((draws.zoom != 0).float().mean()) - 0.3) < 0.06
    assert abs(float(((draws.turn != 0) | (draws.turn_after != 0)).float().mean()) - 0.3) < 0.06
    some = AdaDraws.fresh(AdaStrengths(xflip=1), 1.0, 32, generators(1))
    assert some.zoom is None and some.mirrored is not None


def test_the_probability_follows_the_discriminator():
    assert adapted(0.1, 0.9, 5000) == pytest.approx(0.11)
    assert adapted(0.1, 0.2, 5000) == pytest.approx(0.09)
    assert adapted(0.1, 0.6, 5000) == 0.1
    assert adapted(0.0, -1.0, 5000) == 0.0
