"""Square pictures of a face, placed by five landmarks as the networks that take them were trained.

A similarity from five points of an average face in space to the picture tells where the face is and how large. The
picture is resized by it and the square cut out. Systems differ in constants; each has its own function here.

Landmarks are [points, 2] in pixels, x right, y down. Five of them are, in this order: the eye on the picture's left,
the other eye, the tip of the nose, the corner of the mouth on the picture's left, the other corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.media.images import Resampling, check_image, resample

TEMPLATE = (
    (-0.31148657, 0.09036078, 0.13377953),
    (0.30979887, 0.08972035, 0.13179526),
    (0.0032535, -0.24617933, 0.55244243),
    (-0.25216928, -0.5813392, 0.22405732),
    (0.2484662, -0.5812824, 0.22235769),
)
"""Five points of an average face: x right, y up, z to the viewer, decimetres."""
FIVE_OF_98 = (96, 97, 54, 76, 82)
FIVE_OF_68 = ((36, 39), (42, 45), (30,), (48,), (54,))
LARGEST_RESIZED = 250_000_000  # pixels: three quarters of a gigabyte

Outside = Literal["black", "edge", "reflect"]


def five_of_98(landmarks: Float[Tensor, "98 2"]) -> Float[Tensor, "5 2"]:
    """The five among WFLW's 98 landmarks; pupils for eyes.

    Raises:
        ZooError: for another number of landmarks.
    """
    _check_points(landmarks, 98)
    return landmarks[list(FIVE_OF_98)]


def five_of_68(landmarks: Float[Tensor, "68 2"]) -> Float[Tensor, "5 2"]:
    """The five among iBUG's 68 landmarks; the middle between the corners of an eye for the eye.

    Raises:
        ZooError: for another number of landmarks.
    """
    _check_points(landmarks, 68)
    return torch.stack([landmarks[list(group)].mean(0) for group in FIVE_OF_68])


@dataclass(frozen=True)
class Placement:
    """Where an average face lies in a picture.

    Attributes:
        scale: pixels per unit of the template.
        origin: where the template's origin falls, pixels, y down.
    """

    scale: float
    origin: tuple[float, float]


def fit_template(five: Float[Tensor, "5 2"], shift: tuple[float, float] = (0.0, 0.0)) -> Placement:
    """The affine camera that brings :data:`TEMPLATE` closest to five landmarks, by least squares.

    Its two rows are fitted each by itself; the scale is the mean of their lengths.

    Args:
        five: landmarks.
        shift: added to the template's y and z.

    Raises:
        ZooError: for other shapes, for numbers that are not finite, and for landmarks that are all the same.
    """
    _check_points(five, 5)
    template = torch.tensor(TEMPLATE, dtype=torch.float64) + torch.tensor((0.0, *shift), dtype=torch.float64)
    design = torch.cat([template, torch.ones(5, 1, dtype=torch.float64)], dim=1)
    rows = torch.linalg.lstsq(design, five.double().cpu(), driver="gelsd").solution.T
    scale = float(torch.linalg.vector_norm(rows[:, :3], dim=1).mean())
    if scale < 1e-6 * max(float(five.abs().max()), 1.0):
        raise ZooError("the five landmarks of the face are all at one place: the face cannot be cut out by them")
    return Placement(scale, (float(rows[0, 3]), float(rows[1, 3])))


@dataclass(frozen=True)
class Crop:
    """A square picture of a face.

    Attributes:
        image: RGB.
        scale: its pixels per pixel of the picture it was cut from.
        offset: added to scaled landmarks.
    """

    image: UInt8[Tensor, "side side 3"]
    scale: float
    offset: tuple[float, float]

    def move(self, landmarks: Float[Tensor, "points 2"]) -> Float[Tensor, "points 2"]:
        """Where landmarks of the whole picture lie in the crop, pixels, y down.

        As in the files that the released networks learnt from they are up to a pixel off: the picture is moved by
        whole pixels and they are not, and their y counts from below the last row (``y = side - y_up``).
        """
        return landmarks * self.scale + torch.tensor(self.offset, dtype=torch.float64).to(landmarks)


def portrait_crop(image: UInt8[Tensor, "height width 3"], five: Float[Tensor, "5 2"], side: int = 512) -> Crop:
    """The picture of head and shoulders that Portrait4D takes; borders are continued outwards.

    Args:
        image: RGB.
        five: landmarks.
        side: of the crop, pixels.

    Raises:
        ZooError: for what is no picture or no five landmarks, and for a face too small or too large to be cut out.
    """
    return cut(image, fit_template(five, (0.1, 0.4)), side, 180 * side / 512, "lanczos", "edge")


def coefficient_crop(
    image: UInt8[Tensor, "height width 3"],
    five: Float[Tensor, "5 2"],
    resampling: Resampling = "bilinear",
) -> Crop:
    """The face as :class:`~portraitzoo.faces.deep3d.Deep3D` takes it, 224 pixels; black outside the picture.

    Args:
        image: RGB.
        five: landmarks.
        resampling: ``bilinear`` as Portrait4D does, ``bicubic`` as Deep3DFaceRecon and EG3D do.

    Raises:
        ZooError: as :func:`portrait_crop`.
    """
    return cut(image, fit_template(five), 224, 102.0, resampling, "black")


def eg3d_crop(image: UInt8[Tensor, "height width 3"], five: Float[Tensor, "5 2"], side: int = 512) -> Crop:
    """The picture that belongs to EG3D's camera labels (Chan et al., CVPR 2022, supplement), which PV3D takes too.

    Args:
        image: RGB.
        five: landmarks.
        side: of the crop, pixels.

    Raises:
        ZooError: as :func:`portrait_crop`.
    """
    wide, middle = 1024, 700
    border = (wide - middle) // 2
    crop = cut(image, fit_template(five), wide, 300.0, "bicubic", "black")
    inner = crop.image[border : border + middle, border : border + middle]
    zoom = side / middle
    x, y = crop.offset
    return Crop(resample(inner, side, side, "lanczos"), crop.scale * zoom, ((x - border) * zoom, (y - border) * zoom))


def cut(
    image: UInt8[Tensor, "height width 3"],
    placement: Placement,
    side: int,
    size: float,
    resampling: Resampling,
    outside: Outside,
) -> Crop:
    """Resize a picture and cut the square around the template's origin out of it.

    Args:
        image: RGB.
        placement: of the face.
        side: of the square, pixels.
        size: pixels per unit of the template in the square.
        resampling: filter, widened where the picture shrinks.
        outside: what is seen beyond the picture: nothing, its border repeated, or itself mirrored.

    Raises:
        ZooError: for what is no picture, and for a face too small or too large to be cut out.
    """
    check_image(image)
    height, width = image.shape[:2]
    scale = size / placement.scale
    high, wide = int(height * scale), int(width * scale)
    if not high or not wide:
        raise ZooError(f"the face is {1 / scale:.0f} times as large as it should be in {side} pixels: no face can be")
    if high * wide > LARGEST_RESIZED:
        raise ZooError(
            f"the face is too small: the picture of {width} x {height} pixels would have to be enlarged to "
            f"{wide} x {high}; cut the surroundings of the face out of it first"
        )
    x, y = placement.origin
    left, top = wide / 2 - side / 2 + (x - width / 2) * scale, high / 2 - side / 2 + (y + 1 - height / 2) * scale
    rows, columns = _within(int(top), side, high, outside), _within(int(left), side, wide, outside)
    square = resample(image, high, wide, resampling)[rows.clamp(min=0)[:, None], columns.clamp(min=0)]
    square[(rows[:, None] < 0) | (columns < 0)] = 0
    offset = (width / 2 - x) * scale - (wide - side) / 2, (high + side) / 2 - (y + height / 2) * scale
    return Crop(square, scale, offset)


def _within(start: int, count: int, length: int, outside: Outside) -> Tensor:
    """Indices of ``count`` pixels from ``start`` in a row of ``length``; -1 where nothing is."""
    index = torch.arange(start, start + count)
    match outside:
        case "edge":
            return index.clamp(0, length - 1)
        case "reflect":
            period = max(2 * (length - 1), 1)
            index = index % period
            return torch.minimum(index, period - index)
        case "black":
            return torch.where((index < 0) | (index >= length), -1, index)


def _check_points(landmarks: Tensor, count: int) -> None:
    if landmarks.shape != (count, 2):
        raise ZooError(f"{count} landmarks are [{count}, 2] numbers, not {list(landmarks.shape)}")
    if not torch.isfinite(landmarks).all():
        raise ZooError("landmarks hold NaN or infinite numbers")
