from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.images import (
    check_image,
    from_uint8,
    natural_order,
    read_image,
    resample,
    to_uint8,
    write_image,
)
from portraitzoo.media.sheets import contact_sheet

PICTURE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def image_of(grey):
    return torch.tensor(grey).expand(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("rule", "x", "grey"),
    [
        ("pv3d", 0.0, 127), ("pv3d", 0.999, 254), ("pv3d", 1.0, 255), ("pv3d", -3.0, 0), ("pv3d", 3.0, 255),
        ("stylegan", 0.0, 128), ("stylegan", -1.0, 0), ("stylegan", 0.997, 255), ("stylegan", 1.0, 255),
        ("threedvidgen", 0.0, 127), ("threedvidgen", 1.5, 255),
        ("round", 0.0, 128), ("round", 0.997, 255), ("round", -1.0, 0),
    ],
)  # fmt: skip
def test_rules_of_rounding(rule, x, grey):
    assert to_uint8(image_of(x), rule).unique().tolist() == [grey]


def test_axes_of_to_uint8():
    image = torch.stack([torch.full((4, 5), value) for value in (-1.0, 0.0, 1.0)])[None]
    assert to_uint8(image).shape == (1, 4, 5, 3)
    assert to_uint8(image)[0, 0, 0].tolist() == [0, 127, 255]


def test_unknown_rule():
    with pytest.raises(MediaError, match="choose pv3d"):
        to_uint8(image_of(0.0), "nearest")


@given(st.integers(0, 255))
def test_eight_bits_survive_the_round_trip(grey):
    frames = torch.full((1, 2, 2, 3), grey, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(frames), "round"), frames)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tiff"])
def test_lossless_formats(tmp_path, suffix):
    assert torch.equal(read_image(write_image(tmp_path / f"picture{suffix}", PICTURE)), PICTURE)


def test_jpeg_is_near(tmp_path):
    smooth = torch.from_numpy(cv2.GaussianBlur(PICTURE.numpy(), (0, 0), 6))
    assert (read_image(write_image(tmp_path / "picture.jpg", smooth)).float() - smooth.float()).abs().mean() < 2


def test_grey_alpha_and_sixteen_bits(tmp_path):
    grey = PICTURE[..., 0].numpy()
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=-1))
    bgra = np.dstack([PICTURE.numpy()[..., ::-1], np.zeros_like(grey)])
    cv2.imwrite(str(tmp_path / "alpha.png"), bgra)
    assert torch.equal(read_image(tmp_path / "alpha.png"), PICTURE)
    cv2.imwrite(str(tmp_path / "deep.png"), PICTURE.numpy()[..., ::-1].astype(np.uint16) * 256 + 99)
    assert (read_image(tmp_path / "deep.png").int() - PICTURE.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"words", "no image"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "no image")]
)
def test_bad_images_are_named(tmp_path, content, message):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(MediaError, match=message) as caught:
        read_image(tmp_path / "bad.png")
    assert "bad.png" in str(caught.value)


def test_absent_and_unwritable(tmp_path):
    with pytest.raises(MediaError, match="cannot read the image"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(MediaError, match="names no image format"):
        write_image(tmp_path / "picture.doc", PICTURE)
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="cannot write"):
        write_image(tmp_path / "file" / "picture.png", PICTURE)


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_natural_order_counts(numbers):
    paths = [Path(f"frame{number}.png") for number in numbers]
    assert [path.stem for path in sorted(paths, key=natural_order)] == [f"frame{number}" for number in sorted(numbers)]


@settings(max_examples=25)
@given(st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_every_picture_is_on_the_sheet(count, columns, labelled):
    images = [torch.full((10 + index, 12, 3), 10 * index, dtype=torch.uint8) for index in range(count)]
    labels = [f"seed {index}" for index in range(count)] if labelled else None
    sheet = contact_sheet(images, columns, labels, gap=3)
    strip = 12 if labelled else 0
    rows, across = -(-count // columns), min(columns, count)
    assert sheet.shape == (rows * (9 + count + strip + 3) - 3, across * 15 - 3, 3)
    for index in range(count):
        row, column = divmod(index, columns)
        cell = sheet[row * (9 + count + strip + 3) :, column * 15 : column * 15 + 12][: 9 + count]
        assert (cell == 10 * index).all(-1).sum() >= (10 + index) * 12


def test_labels_are_drawn_below():
    images = torch.zeros(2, 40, 120, 3, dtype=torch.uint8)
    sheet = contact_sheet(images, 2, ["canonical", ""])
    assert (sheet[40:, :120] < 128).any() and not (sheet[40:, 122:] < 128).any()


def test_impossible_sheets():
    with pytest.raises(MediaError, match="at least 1 picture"):
        contact_sheet([])
    with pytest.raises(MediaError, match="at least 1 picture and 1 column"):
        contact_sheet([PICTURE], 0)
    with pytest.raises(MediaError, match="one label for each"):
        contact_sheet([PICTURE], 1, [])


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(4, 4, 3),
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(4, 4, dtype=torch.uint8),
        torch.zeros(0, 4, 3, dtype=torch.uint8),
    ],
    ids=["floats", "channels first", "grey", "empty"],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(MediaError, match=r"uint8 \[height, width, 3\]"):
        check_image(image)


@pytest.mark.parametrize("rule", ["bilinear", "bicubic", "lanczos"])
def test_resampling_keeps_a_plain_picture_and_averages_when_it_shrinks(rule):
    plain = torch.full((7, 5, 3), 77, dtype=torch.uint8)
    assert resample(plain, 13, 4, rule).equal(torch.full((13, 4, 3), 77, dtype=torch.uint8))
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 200
    small = resample(board.to(torch.uint8)[..., None].repeat(1, 1, 3), 8, 8, rule)
    assert (small[2:-2, 2:-2].int() - 100).abs().max() <= 3  # without averaging it would be 0 or 200
