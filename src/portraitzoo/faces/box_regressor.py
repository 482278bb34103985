"""The box of a face from five landmarks: Deep3DFaceRecon's BBRegressor, and the picture that it cuts out for a detector
of 68 landmarks.

Pixels, x right, y down. :mod:`portraitzoo.hub.faces.box_regressor` reads the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.alignment import Crop
from portraitzoo.faces.boxes import corners, cut

CROP_SIZE = 224


class BoxRegressor(nn.Module):
    """Two layers in float64 that see where five landmarks lie relative to each other.

    Args:
        width: of the hidden layer; 200 in the released file.
    """

    def __init__(self, width: int = 200) -> None:
        super().__init__()
        self.hidden = nn.Linear(10, width, dtype=torch.float64)
        self.output = nn.Linear(width, 3, dtype=torch.float64)

    def forward(self, five: Float[Tensor, "batch 5 2"]) -> Float[Tensor, "batch 4"]:
        """Corners x1, y1, x2, y2 of square boxes, float64; they move and grow as the landmarks do.

        Args:
            five: landmarks in the order of :mod:`~portraitzoo.faces.alignment`.

        Raises:
            ZooError: for other shapes, numbers that are not finite, landmarks all at one place, or where the network
                finds a box without extent.
        """
        if five.ndim != 3 or five.shape[1:] != (5, 2):
            raise ZooError(f"five landmarks each are [batch, 5, 2] numbers, not {list(five.shape)}")
        if not torch.isfinite(five).all():
            raise ZooError("landmarks hold NaN or infinite numbers")
        middle = five.double().mean(dim=1)
        apart = five.double() - middle[:, None]
        spread = (apart.square().sum(dim=(1, 2)) / 5).sqrt()[:, None]
        if (spread == 0).any():
            raise ZooError("the five landmarks of a face are all at one place: it has no box")
        placed = self.output(torch.tanh(self.hidden((apart / spread[..., None]).flatten(1))))
        # The third number is how large the landmarks' spread shall be in the crop.
        spread_wanted = placed[:, 2:]
        if not (spread_wanted > 0).all():
            raise ZooError("five landmarks lead to no box: they are those of no face, or the weights are broken")
        first = placed[:, :2] * spread + middle
        return torch.cat([first, first + CROP_SIZE / spread_wanted * spread], dim=1)


def box_crop(image: UInt8[Tensor, "height width 3"], box: Float[Tensor, " 4"]) -> Crop:
    """What a square box holds, resized to 224 pixels by cubic interpolation; black where the box leaves the picture.

    However far the box leaves it, the face stays where it belongs: there is no limit at half a picture beyond the
    border, from where on Deep3DFaceRecon gives no crop.

    Args:
        image: RGB.
        box: corners as of :class:`BoxRegressor`; first corner and side are rounded to whole pixels.

    Raises:
        ZooError: if this is no picture or no square box, or the box holds no pixel or is many times as large as the
            picture.
    """
    x1, y1, x2, y2 = corners(box)
    width, height = round(x2 - x1), round(y2 - y1)
    if width != height:
        raise ZooError(f"the box of a face is {width} x {height} pixels, and shall be square")
    left, top = round(x1), round(y1)
    whole = torch.tensor([left, top, left + width, top + height], dtype=torch.float64)
    pixels = cut(image, whole)[0].permute(2, 0, 1)[None].double()
    resized = F.interpolate(pixels, (CROP_SIZE, CROP_SIZE), mode="bicubic")[0].permute(1, 2, 0)
    scale = CROP_SIZE / width
    return Crop(resized.round().clamp(0, 255).to(torch.uint8), scale, (-left * scale, -top * scale))
