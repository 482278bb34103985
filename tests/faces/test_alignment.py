import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import ZooError
from portraitzoo.faces.alignment import (
    TEMPLATE,
    coefficient_crop,
    cut,
    eg3d_crop,
    fit_template,
    five_of_68,
    five_of_98,
    portrait_crop,
)


def seen(scale: float, x: float, y: float, shift: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
    """Five landmarks of the average face seen from straight ahead, its origin at (x, y)."""
    points = torch.tensor(TEMPLATE, dtype=torch.float64)[:, :2] + torch.tensor([0.0, shift[0]], dtype=torch.float64)
    return points * torch.tensor([scale, -scale]) + torch.tensor([x, y], dtype=torch.float64)


FIVE = seen(40.0, 100.0, 90.0)
PICTURE = torch.randint(0, 256, (200, 180, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@given(
    scale=st.floats(5, 500),
    x=st.floats(-200, 2000),
    y=st.floats(-200, 2000),
    up=st.floats(-0.5, 0.5),
    near=st.floats(-0.5, 0.5),
)
@settings(max_examples=40, deadline=None)
def test_a_face_is_found_where_it_was_put(scale, x, y, up, near):
    found = fit_template(seen(scale, x, y, (up, near)), (up, near))
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.origin == pytest.approx((x, y), abs=1e-4)


@pytest.mark.parametrize("crop", [portrait_crop, coefficient_crop, eg3d_crop])
def test_faces_of_all_sizes_come_out_alike(crop):
    smooth = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    pictures, moved = [], []
    for size in (200, 400):
        picture = torch.nn.functional.interpolate(smooth, (size, size), mode="bicubic", align_corners=False)
        five = (FIVE + 0.5) * (size / 200) - 0.5
        cropped = crop((picture[0].movedim(0, -1).clamp(0, 1) * 255).to(torch.uint8), five)
        pictures.append(cropped.image.float())
        moved.append(cropped.move(five))
    assert float((pictures[0] - pictures[1]).abs().mean()) < 3
    assert float((moved[0] - moved[1]).abs().max()) < 4


@pytest.mark.parametrize(("crop", "size", "side"), [(portrait_crop, 180, 512), (coefficient_crop, 102, 224)])
def test_landmarks_move_with_the_picture(crop, size, side):
    # Without the shift a frontal face's eyes lie this far apart, whatever the recipe's vertical place.
    cropped = crop(PICTURE, FIVE)
    moved = cropped.move(FIVE)
    assert cropped.image.shape == (side, side, 3)
    assert float(moved[1, 0] - moved[0, 0]) == pytest.approx(size * (TEMPLATE[1][0] - TEMPLATE[0][0]), rel=1e-6)
    x, y = (round(float(value)) for value in FIVE[2])
    dotted = torch.zeros_like(PICTURE)
    dotted[y, x] = 255
    spot = crop(dotted, FIVE).image.float().sum(2)
    where = torch.stack([(spot.sum(axis) * torch.arange(side)).sum() / spot.sum() for axis in (0, 1)])
    there = cropped.move(torch.tensor([[float(x), float(y)]], dtype=torch.float64))[0]
    # A pixel's middle is half an enlarged pixel beyond its corner, which landmarks are measured from.
    assert float((where - there).abs().max()) < 1 + cropped.scale / 2


def test_landmarks_keep_their_precision():
    five, point = seen(41.3, 100.0, 90.0), torch.tensor([[33.0, 44.0]], dtype=torch.float64)
    moved = portrait_crop(PICTURE, five).move(point)
    shifted = portrait_crop(PICTURE, five + 1e-6).move(point + 1e-6)
    torch.testing.assert_close(shifted, moved, atol=1e-9, rtol=0)


def test_a_smaller_portrait_is_the_same_view():
    large, small = portrait_crop(PICTURE, FIVE), portrait_crop(PICTURE, FIVE, side=128)
    torch.testing.assert_close(small.move(FIVE), large.move(FIVE) / 4, atol=1, rtol=0)


@pytest.mark.parametrize("outside", ["black", "edge", "reflect"])
def test_what_lies_beyond_the_picture(outside):
    # Twice the picture's size around a small picture of two colours, at its own scale.
    picture = torch.zeros(4, 6, 3, dtype=torch.uint8)
    picture[:, :3], picture[:, 3:] = 10, 200
    placement = fit_template(seen(1.0, 3.0, 1.0))
    square = cut(picture, placement, 12, placement.scale, "bilinear", outside).image
    columns = square[6, :, 0].tolist()
    expected = {
        "black": [0, 0, 0, 10, 10, 10, 200, 200, 200, 0, 0, 0],
        "edge": [10] * 6 + [200] * 6,
        "reflect": [200, 10, 10, 10, 10, 10, 200, 200, 200, 200, 200, 10],
    }
    assert columns == expected[outside]


def test_a_crop_beside_the_picture_is_no_error():
    away = FIVE + 5000
    assert not coefficient_crop(PICTURE, away).image.any()
    assert portrait_crop(PICTURE, away).image.unique(dim=0).shape[0] == 1


def test_five_of_more():
    assert five_of_98(torch.arange(196.0).view(98, 2))[:, 0].tolist() == [192, 194, 108, 152, 164]
    assert five_of_68(torch.arange(136.0).view(68, 2))[:, 0].tolist() == [75, 87, 60, 96, 108]


@pytest.mark.parametrize(
    ("image", "five", "says"),
    [
        (PICTURE.float(), FIVE, r"uint8"),
        (PICTURE[:, :, :1], FIVE, r"uint8 \[height, width, 3\]"),
        (PICTURE, FIVE[:4], "5 landmarks"),
        (PICTURE, FIVE * math.nan, "NaN"),
        (PICTURE, torch.full((5, 2), 7.0), "one place"),
        (PICTURE, (FIVE - 90) / 10000 + 90, "too small"),
        (PICTURE, FIVE * 1000, "times as large"),
    ],
    ids=["float", "grey", "four", "nan", "point", "tiny", "huge"],
)
def test_what_cannot_be_cut_out(image, five, says):
    with pytest.raises(ZooError, match=says) as failure:
        portrait_crop(image, five)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("take", [five_of_68, five_of_98])
def test_wrong_numbers_of_landmarks(take):
    with pytest.raises(ZooError, match="landmarks"):
        take(torch.zeros(70, 2))
