import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from portraitzoo.training.diffaugment import (
    DiffAugmentDraws,
    change_colors,
    cut_out,
    diffaugment,
    largest_shift,
    translate,
)


def frames(videos: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(videos, 2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def neutral(videos: int = 3) -> list[torch.Tensor]:
    return [torch.full((videos,), 0.5)] * 3


def test_middle_draws_change_nothing():
    draws = DiffAugmentDraws(*neutral(), torch.zeros(3, 2, dtype=torch.long))
    torch.testing.assert_close(diffaugment(frames(), draws), frames())


def test_no_saturation_is_grey_and_contrast_keeps_the_mean():
    grey = change_colors(frames(), torch.full((3,), 0.5), torch.zeros(3), torch.full((3,), 0.5))
    torch.testing.assert_close(grey, frames().mean(dim=2, keepdim=True).expand_as(grey))
    strong = change_colors(frames(), *neutral()[:2], torch.ones(3))
    torch.testing.assert_close(strong.mean(dim=(2, 3, 4)), frames().mean(dim=(2, 3, 4)), atol=1e-6, rtol=0)
    assert (strong.std(dim=(2, 3, 4)) > 1.4 * frames().std(dim=(2, 3, 4))).all()


@given(st.integers(-16, 16), st.integers(-16, 16))
def test_translation_there_and_back_keeps_what_stayed_inside(down, right):
    shift = torch.tensor([[down, right]])
    ones = torch.ones(1, 2, 3, 16, 16)
    back = translate(translate(frames(1), shift), -shift)
    kept = translate(translate(ones, shift), -shift)
    assert torch.equal(back, frames(1) * kept)
    assert kept.sum() == 6 * max(16 - abs(down), 0) * max(16 - abs(right), 0)


def test_frames_of_a_video_change_alike_and_videos_differently():
    draws = DiffAugmentDraws.fresh(16, [torch.Generator().manual_seed(seed) for seed in range(3)])
    alike = frames()[:1, :1].expand(3, 2, -1, -1, -1)
    changed = diffaugment(alike, draws)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.equal(changed[0], changed[1])


def test_a_video_draws_the_same_in_any_company():
    def draws(*seeds: int) -> DiffAugmentDraws:
        return DiffAugmentDraws.fresh(64, [torch.Generator().manual_seed(seed) for seed in seeds])

    together, alone = draws(1, 2), draws(2)
    for name in ("brightness", "saturation", "contrast", "shift"):
        assert torch.equal(getattr(together, name)[1:], getattr(alone, name))


def test_shifts_reach_an_eighth_of_the_side():
    shifts = DiffAugmentDraws.fresh(64, [torch.Generator().manual_seed(seed) for seed in range(200)]).shift
    assert largest_shift(64) == 8
    assert (shifts.min(), shifts.max()) == (-8, 8)


def test_a_cut_is_a_square_of_half_the_side():
    cut = cut_out(torch.ones(1, 2, 3, 16, 16), torch.tensor([[8, 8]]))
    assert (cut == 0).sum() == 6 * 8 * 8
    at_corner = cut_out(torch.ones(1, 2, 3, 16, 16), torch.tensor([[0, 0]]))
    assert (at_corner == 0).sum() == 6 * 4 * 4


@pytest.mark.parametrize("size", [12, 16])
def test_gradients_pass(size):
    pictures = frames(2, size).double().requires_grad_()
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    draws = DiffAugmentDraws.fresh(size, generators)
    diffaugment(pictures, draws).sum().backward()
    assert pictures.grad.abs().sum() > 0
