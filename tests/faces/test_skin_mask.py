import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from portraitzoo.errors import ZooError
from portraitzoo.faces.skin_mask import OTHER, SKIN, SKIN_PRIOR, ColourMixture, skin_mask, ycbcr


def patches(*colours: tuple[int, int, int]) -> torch.Tensor:
    """One picture of a single colour for each."""
    return torch.tensor(colours, dtype=torch.uint8)[:, None, None].expand(-1, 2, 3, -1)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def density(mixture: ColourMixture, colours: torch.Tensor) -> torch.Tensor:
    """The same by torch's own mixtures, full covariances spelled out."""
    precisions = torch.tensor(mixture.precisions, dtype=torch.float64)[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(
        1, (3, 3)
    )
    means, weights = (torch.tensor(part, dtype=torch.float64) for part in (mixture.means, mixture.weights))
    whole = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, precision_matrix=precisions))
    return whole.log_prob(colours).exp()


def test_skin_is_told_from_grass_sky_and_paper():
    skin = skin_mask(patches((224, 172, 145), (198, 134, 108), (141, 85, 64)))
    other = skin_mask(patches((60, 140, 50), (110, 160, 230), (250, 250, 250), (0, 255, 0)))
    assert int(skin.min()) > 250 and int(other.max()) < 128
    assert skin.shape == (3, 2, 3) and skin.dtype == torch.uint8


def test_colours_of_black_white_and_red():
    found = ycbcr(torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]], dtype=torch.uint8))
    expected = torch.tensor([[16, 128, 128], [235, 128, 128], [81.481, 90.203, 240]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_bayes_rule():
    images = noise(0, 2, 16, 16, 3)
    colours = ycbcr(images)
    skin, other = SKIN_PRIOR * density(SKIN, colours), (1 - SKIN_PRIOR) * density(OTHER, colours)
    expected = 255 * skin / (skin + other)
    # Determinants are published in single precision beside the matrices.
    torch.testing.assert_close(skin_mask(images).double(), expected, atol=0.5001, rtol=0)
    assert int(skin_mask(images).max()) > 250 and int(skin_mask(images).min()) == 0


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_pixels_do_not_know_each_other(seed, batch, height, width):
    images = noise(seed, batch, height, width, 3)
    together = skin_mask(images)
    assert together.equal(torch.cat([skin_mask(image[None]) for image in images]))
    assert together.flip(2).equal(skin_mask(images.flip(2)))


@pytest.mark.parametrize(
    "images",
    [torch.zeros(4, 4, 3, dtype=torch.uint8), torch.zeros(1, 4, 4, 3), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)],
)
def test_what_are_no_pictures_is_told_in_one_line(images):
    with pytest.raises(ZooError, match=r"uint8 \[batch, height, width, 3\] \(RGB\), not torch") as told:
        skin_mask(images)
    assert "\n" not in str(told.value)
