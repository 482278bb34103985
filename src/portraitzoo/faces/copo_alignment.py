"""Photos as 3DFaceShop (CoPo) takes them: a crop for face coefficients, then the photo moved to where these put the
face (Tang et al., 2022, data preparation).

Photos are 512 x 512 pixels here, whatever their sides were before. Landmarks are pixels, x right, y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.alignment import Crop, cut, fit_template, five_of_68
from portraitzoo.faces.bfm import IMAGE_SIZE as COEFFICIENT_SIZE
from portraitzoo.faces.similarity import fit_similarity, warp
from portraitzoo.media.images import check_image, resample

SIZE = 512
FACE_TRANSLATION = (0.0, -0.1, 0.0)
"""Translation that takes the place of the regressor's before its landmarks are projected: all faces get it."""
RECOGNITION_TEMPLATE, RECOGNITION_SIZE = (
    (
        (97.829911, 127.7792227),
        (181.0531819, 126.3381292),
        (139.5739672, 179.0006314),
        (102.6964111, 216.7013791),
        (179.306845, 215.3732908),
    ),
    286,
)
"""Where the training's identity loss wants eyes, nose and corners of the mouth, in a picture of so many pixels."""


def copo_photo(image: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "512 512 3"]:
    """The photo squeezed into a square, as it is before anything is looked for in it.

    Raises:
        ZooError: for what is no picture.
    """
    check_image(image)
    return resample(image, SIZE, SIZE, "bicubic")


def copo_five(landmarks: Float[Tensor, "68 2"]) -> Float[Tensor, "5 2"]:
    """Whole-pixel eye middles, the base of the nose (where the template has its tip) and corners of the mouth.

    Raises:
        ZooError: for another number of landmarks.
    """
    if landmarks.shape != (68, 2):
        raise ZooError(f"68 landmarks are [68, 2] numbers, not {list(landmarks.shape)}")
    points = landmarks.double()
    eyes = [points[first : first + 6].mean(0).round() for first in (36, 42)]
    return torch.stack([*eyes, *points[[33, 48, 54]]])


def copo_crop(photo: UInt8[Tensor, "512 512 3"], five: Float[Tensor, "5 2"]) -> Crop:
    """The face, 512 pixels; mirrored where the photo ends.

    Args:
        photo: :func:`copo_photo`.
        five: :func:`copo_five`.

    Raises:
        ZooError: for another size, and as :func:`~portraitzoo.faces.alignment.portrait_crop`.
    """
    _check_photo(photo)
    return cut(photo, fit_template(five), SIZE, 95 * SIZE / COEFFICIENT_SIZE, "lanczos", "reflect")


def coefficient_input(crop: UInt8[Tensor, "512 512 3"]) -> Float[Tensor, "1 3 224 224"]:
    """What :class:`~portraitzoo.faces.deep3d.Deep3D` gets of a crop, in [0, 1]: bilinear between corner pixels."""
    pixels = crop.permute(2, 0, 1)[None].float() / 255
    return F.interpolate(pixels, (COEFFICIENT_SIZE, COEFFICIENT_SIZE), mode="bilinear", align_corners=True)


def alignment_matrix(five: Float[Tensor, "5 2"], projected: Float[Tensor, "68 2"]) -> Float[Tensor, "2 3"]:
    """Similarity that brings the photo's face to where its coefficients put it.

    Args:
        five: :func:`copo_five`.
        projected: landmarks of the coefficients with :data:`FACE_TRANSLATION`, pixels of 224, as
            :meth:`~portraitzoo.faces.bfm.BaselFace.landmarks` (centred by the mean) gives them.

    Raises:
        ZooError: for other shapes, or numbers that are not finite.
    """
    wanted = five_of_68(projected).double()
    # Enlarged with y upwards from the last row, which then is the last row's of the larger picture.
    zoom = SIZE / COEFFICIENT_SIZE
    up = (COEFFICIENT_SIZE - 1 - wanted[:, 1]) * zoom
    return fit_similarity(five.to(wanted), torch.stack([wanted[:, 0] * zoom, SIZE - 1 - up], dim=1))


def align_photo(photo: UInt8[Tensor, "512 512 3"], matrix: Float[Tensor, "2 3"]) -> Float[Tensor, "1 3 512 512"]:
    """The photo that goes into the data set, in [0, 1]: bilinear, mirrored where the photo ends.

    Args:
        photo: :func:`copo_photo`.
        matrix: :func:`alignment_matrix`.

    Raises:
        ZooError: for another size.
    """
    _check_photo(photo)
    pixels = photo.permute(2, 0, 1)[None].float() / 255
    return warp(pixels, matrix[None].to(pixels.device), SIZE, outside="reflection")


def recognition_matrix(landmarks: Float[Tensor, "batch 68 2"], side: int) -> Float[Tensor, "batch 2 3"]:
    """Similarities that bring faces to :data:`RECOGNITION_TEMPLATE` in pictures of ``side`` pixels.

    Raises:
        ZooError: for other shapes, or numbers that are not finite.
    """
    five = torch.stack([five_of_68(points) for points in landmarks])
    template = torch.tensor(RECOGNITION_TEMPLATE).to(five) * (side / RECOGNITION_SIZE)
    return fit_similarity(five, template.expand_as(five))


def _check_photo(photo: Tensor) -> None:
    check_image(photo)
    if photo.shape[:2] != (SIZE, SIZE):
        raise ZooError(f"a photo for 3DFaceShop is {SIZE} x {SIZE} pixels, not {photo.shape[1]} x {photo.shape[0]}")
