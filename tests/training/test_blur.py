import pytest
import torch

from portraitzoo.training.blur import blur


def test_no_blur_returns_the_image_itself():
    image = torch.randn(2, 3, 9, 9)
    assert blur(image, 0.0) is image
    assert blur(image, 0.3) is image


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.4])
def test_a_dot_becomes_a_symmetric_bump_of_the_same_mass(sigma):
    image = torch.zeros(1, 2, 31, 31)
    image[:, :, 15, 15] = 1
    result = blur(image, sigma)
    assert torch.allclose(result.sum(dim=(2, 3)), torch.ones(1, 2), atol=1e-5)
    assert torch.allclose(result, result.flip(-1), atol=1e-7)
    assert torch.allclose(result, result.transpose(-1, -2), atol=1e-7)
    assert result.argmax() % (31 * 31) == 15 * 31 + 15


def test_more_blur_leaves_less_detail():
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    variances = [blur(image, sigma)[:, :, 20:44, 20:44].var() for sigma in (0.0, 0.5, 1.0, 3.0)]
    assert variances == sorted(variances, reverse=True)
