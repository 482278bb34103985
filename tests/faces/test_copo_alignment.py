import math

import pytest
import torch

from portraitzoo.errors import ZooError
from portraitzoo.faces.copo_alignment import (
    RECOGNITION_TEMPLATE,
    align_photo,
    alignment_matrix,
    coefficient_input,
    copo_crop,
    copo_five,
    copo_photo,
    recognition_matrix,
)


def landmarks(scale: float = 1.0, x: float = 256, y: float = 256) -> torch.Tensor:
    """A face of 68 points: eyes above, nose in the middle, mouth below."""
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    points[36:42] += torch.tensor([-50.0, -40.0])
    points[42:48] += torch.tensor([50.0, -40.0])
    points[30] = torch.tensor([0.0, 10.0])
    points[33] = torch.tensor([0.0, 25.0])
    points[48], points[54] = torch.tensor([-35.0, 60.0]), torch.tensor([35.0, 60.0])
    return points * scale + torch.tensor([x, y])


def photo(height: int = 512, width: int = 512) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 255
    grown = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255)
    return grown[0].permute(1, 2, 0).to(torch.uint8)


def test_photos_become_squares():
    assert copo_photo(photo(300, 640)).shape == (512, 512, 3)
    assert copo_photo(photo()).equal(photo())


def test_five_points_are_whole_pixels_with_the_base_of_the_nose():
    five = copo_five(landmarks())
    assert five[:2].equal(five[:2].round()) and five[2].equal(landmarks()[33])
    torch.testing.assert_close(five[0], landmarks()[36:42].mean(0), atol=0.5, rtol=0)


def test_crops_show_faces_of_one_size_in_one_place():
    fives = [copo_five(landmarks(scale, x)) for scale, x in ((1.0, 256), (1.5, 300))]
    crops = [copo_crop(photo(), five) for five in fives]
    placed = [crop.move(five) for crop, five in zip(crops, fives, strict=True)]
    torch.testing.assert_close(placed[0], placed[1], atol=2.0, rtol=0)
    assert crops[0].image.shape == (512, 512, 3)
    given = coefficient_input(crops[0].image)
    assert given.shape == (1, 3, 224, 224) and 0 <= float(given.min()) <= float(given.max()) <= 1
    torch.testing.assert_close(given[0, :, 0, 0] * 255, crops[0].image[0, 0].float())


def test_the_face_goes_where_its_coefficients_put_it():
    five, projected = copo_five(landmarks()), landmarks(0.5, 110, 120)
    matrix = alignment_matrix(five, projected)
    moved = five.float() @ matrix[:, :2].T + matrix[:, 2]
    zoom = 512 / 224
    assert math.hypot(*matrix[:, 0].tolist()) == pytest.approx(0.5 * zoom, rel=0.05)
    middle = projected[[36, 39, 42, 45, 48, 48, 54, 54]].mean(0) * zoom
    assert float((moved[[0, 1, 3, 4]].mean(0) - middle).norm()) < 5
    again = align_photo(photo(), torch.eye(2, 3))
    torch.testing.assert_close(again[0].permute(1, 2, 0) * 255, photo().float(), atol=0.05, rtol=0)


def test_beyond_the_photo_is_its_mirror_image():
    shifted = align_photo(photo(), torch.tensor([[1.0, 0.0, 10.0], [0.0, 1.0, 0.0]]))
    torch.testing.assert_close(shifted[..., :10], shifted[..., 11:21].flip(-1), atol=1e-3, rtol=0)


def test_recognition_crops_hold_the_template():
    template = torch.tensor(RECOGNITION_TEMPLATE, dtype=torch.float64)
    points = torch.zeros(68, 2, dtype=torch.float64)
    points[[36, 39]], points[[42, 45]] = template[0], template[1]
    points[30], points[48], points[54] = template[2:]
    torch.testing.assert_close(recognition_matrix(points[None], 143)[0], torch.eye(2, 3) / 2, atol=1e-4, rtol=0)


def test_what_is_wrong_is_told():
    with pytest.raises(ZooError, match=r"68 landmarks are \[68, 2\] numbers, not \[70, 2\]"):
        copo_five(torch.zeros(70, 2))
    with pytest.raises(ZooError, match="512 x 512 pixels, not 300 x 512"):
        copo_crop(photo(512, 300), copo_five(landmarks()))
    with pytest.raises(ZooError, match="an image is uint8"):
        copo_photo(torch.zeros(4, 4, 3))
    with pytest.raises(ZooError, match="all at one place"):
        copo_crop(photo(), torch.full((5, 2), 100.0))
