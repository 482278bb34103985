from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from portraitzoo.errors import ZooError
from portraitzoo.faces.box_regressor import BoxRegressor, box_crop
from portraitzoo.hub.faces.box_regressor import box_regressor, read_box_regressor

FIVE = torch.tensor([[70.0, 80.0], [130.0, 82.0], [99.0, 120.0], [75.0, 150.0], [126.0, 151.0]])


def weights(width: int = 7) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    shapes = {"W1": (width, 10), "B1": (width, 1), "W2": (3, width), "B2": (3, 1)}
    arrays = {name: draw(shape) / 4 for name, shape in shapes.items()}
    return arrays | {"B2": np.array([[-1.5], [-1.5], [70.0]])}


def written(folder: Path, **changed: np.ndarray) -> Path:
    path = folder / "BBRegressorParam_r.mat"
    savemat(path, weights() | changed)
    return path


def picture(height: int = 60, width: int = 80) -> torch.Tensor:
    return torch.randint(1, 256, (height, width, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@given(st.floats(0.1, 10), st.floats(-500, 500), st.floats(-500, 500))
def test_boxes_move_and_grow_with_the_face(zoom, x, y):
    regressor, shift = box_regressor(weights()), torch.tensor([x, y], dtype=torch.float64)
    moved = regressor((FIVE.double() * zoom + shift)[None])
    torch.testing.assert_close(moved, regressor(FIVE[None]) * zoom + shift.repeat(2), atol=1e-8, rtol=1e-9)


def test_boxes_are_squares_with_a_part_of_the_crop_for_the_landmarks():
    constant = weights() | {"W2": np.zeros((3, 7))}
    box = box_regressor(constant)(FIVE[None])[0]
    middle = FIVE.double().mean(0)
    spread = (FIVE.double() - middle).norm() / 5**0.5
    torch.testing.assert_close(box[:2], middle - 1.5 * spread)
    torch.testing.assert_close(box[2:] - box[:2], (224 / 70 * spread).expand(2))


def test_faces_of_a_batch_do_not_know_each_other():
    faces = torch.stack([FIVE, FIVE.flip(0), FIVE * 2])
    together = BoxRegressor().eval()
    torch.nn.init.constant_(together.output.bias, 50.0)
    torch.testing.assert_close(together(faces), torch.cat([together(face[None]) for face in faces]))


def test_the_file_is_read(tmp_path):
    regressor = read_box_regressor(written(tmp_path))
    assert regressor(FIVE[None]).equal(box_regressor(weights())(FIVE[None]))
    assert not any(value.requires_grad for value in regressor.parameters())


def test_what_is_wrong_with_files_is_told_in_one_line(tmp_path):
    path = tmp_path / "absent.mat"
    with pytest.raises(ZooError, match=r"cannot read .*absent\.mat: no such file"):
        read_box_regressor(path)
    path.write_bytes(b"no MATLAB file at all" * 20)
    with pytest.raises(ZooError, match="damaged, or no MATLAB file") as told:
        read_box_regressor(path)
    assert "\n" not in str(told.value)
    whole = written(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ZooError, match="cannot read"):
        read_box_regressor(path)
    with pytest.raises(ZooError, match="lacks 'W2': it is not Deep3DFaceRecon's regressor"):
        read_box_regressor(written(tmp_path, W2=np.array(["text"])))
    with pytest.raises(ZooError, match=r"makes no regressor of boxes: .*W2 is \[3, 6\], not \[3, 7\]"):
        read_box_regressor(written(tmp_path, W2=np.zeros((3, 6))))
    with pytest.raises(ZooError, match="B1 holds something that is no number"):
        read_box_regressor(written(tmp_path, B1=np.full((7, 1), np.nan)))


def test_what_are_no_landmarks_is_told():
    regressor = box_regressor(weights())
    with pytest.raises(ZooError, match=r"\[batch, 5, 2\] numbers, not \[5, 2\]"):
        regressor(FIVE)
    with pytest.raises(ZooError, match="NaN or infinite"):
        regressor(torch.full((1, 5, 2), torch.inf))
    with pytest.raises(ZooError, match="all at one place"):
        regressor(torch.stack([FIVE, torch.full((5, 2), 0.1)]))
    with pytest.raises(ZooError, match="lead to no box"):
        box_regressor(weights() | {"B2": np.full((3, 1), -90.0)})(FIVE[None])


def test_crops_hold_the_box_and_black_around_the_picture():
    image = picture()
    crop = box_crop(image, torch.tensor([-100.0, -50.0, 124.0, 174.0]))
    assert crop.scale == 1 and crop.image[50:110, 100:180].equal(image)
    assert int(crop.image.sum()) == int(image.sum())  # nothing else was seen
    far = box_crop(image, torch.tensor([-200.0, 0.0, 24.0, 224.0]))
    assert far.image[:60, 200:].equal(image[:, :24])


def test_crops_are_224_pixels_and_tell_where_landmarks_went():
    image = torch.zeros(60, 80, 3, dtype=torch.uint8)
    image[20:24, 40:44] = 255
    crop = box_crop(image, torch.tensor([24.4, 8.4, 56.4, 40.4], dtype=torch.float64))
    assert crop.image.shape == (224, 224, 3) and crop.image.dtype == torch.uint8 and crop.scale == 7
    x, y = (int(value) for value in crop.move(torch.tensor([[42.0, 22.0]]))[0])
    assert (x, y) == (126, 98)
    assert bool((crop.image[y - 7 : y + 7, x - 7 : x + 7] > 250).all()) and int(crop.image[:70].max()) == 0


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((100.0, 0.0, 120.0, 20.0), "holds none of them"),
        ((0.0, 0.0, 5000.0, 5000.0), "times as large"),
        ((0.0, 0.0, 20.0, 30.0), "is 20 x 30 pixels, and shall be square"),
        ((5.0, 5.0, 5.0, 5.0), "is empty"),
        ((5.0, 5.0, 5.2, 5.2), "is empty"),
        ((0.0, 0.0, float("nan"), 9.0), "four finite numbers"),
    ],
)
def test_what_is_no_box_is_told(box, message):
    with pytest.raises(ZooError, match=message) as told:
        box_crop(picture(), torch.tensor(box))
    assert "\n" not in str(told.value)


def test_what_is_no_picture_is_told():
    with pytest.raises(ZooError, match="an image is uint8"):
        box_crop(torch.zeros(8, 8, 3), torch.tensor([0.0, 0.0, 4.0, 4.0]))
