"""H3R: the 98 landmarks of a face from heatmaps of a high-resolution network (Yu and Tao, TPAMI 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from portraitzoo.faces.boxes import corners, cut, square_box
from portraitzoo.faces.hrnet import HRNet
from portraitzoo.layers.resnet import conv
from portraitzoo.media.images import check_image, resample

INPUT_SIZE = 256
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue."""
LANDMARKS = 98
"""In the order of WFLW: 0-32 contour of the face; 33-41 brow on the image's left, 42-50 the other; 51-54 bridge and tip
of the nose, 55-59 its bottom; 60-67 eye on the image's left, 68-75 the other; 76-87 outer lips, 88-95 inner lips;
96 and 97 pupils."""
STRIDE = 4
"""Pixels of the input from one cell of a heatmap to the next."""
CELLS = 9
"""How many cells of a heatmap have a say in where its landmark is."""
DETECTED_RATIO, TRACKED_RATIO = 1.5, 1.8
"""How much larger than a box the network's view is: of a box that a detector drew, or of one around landmarks."""


def prepare(face: UInt8[Tensor, "_ _ 3"], size: int = INPUT_SIZE) -> Float[Tensor, "1 3 {size} {size}"]:
    """The network's input: a cut RGB picture, squashed to a square (averaging), less ImageNet's mean, by its deviation.

    Raises:
        ZooError: if this is no image.
    """
    check_image(face)
    square = resample(face, size, size, "bilinear").permute(2, 0, 1)[None].float() / 255
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (square - mean) / deviation


def expected_cells(
    heatmaps: Float[Tensor, "batch landmarks rows columns"], cells: int = CELLS
) -> Float[Tensor, "batch landmarks 2"]:
    """Column and row that the best ``cells`` of a heatmap expect, each weighted by the exponential of its score."""
    scores, places = heatmaps.flatten(2).topk(cells, dim=-1)
    columns = heatmaps.shape[-1]
    positions = torch.stack([places % columns, places // columns], dim=-1)
    return (scores.softmax(dim=-1)[..., None] * positions).sum(dim=-2)


class H3R(nn.Module):
    """Finder of a face's 98 landmarks.

    Args:
        widths: of the high-resolution network's branches, stage by stage.
        depths: blocks of its branches, stage by stage.
        exchanges: modules of its stages.
        hidden: channels between its features and the heatmaps.
        input_size: side of the network's input, pixels; a multiple of 32.
    """

    def __init__(
        self,
        widths: Sequence[Sequence[int]] = ((64,), (18, 36), (18, 36, 72), (18, 36, 72, 144)),
        depths: Sequence[Sequence[int]] = ((4,), (4, 4), (4, 4, 4), (4, 4, 4, 4)),
        exchanges: Sequence[int] = (1, 1, 4, 3),
        hidden: int = 270,
        input_size: int = INPUT_SIZE,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.backbone = HRNet(widths, depths, exchanges)
        self.hidden = conv(self.backbone.out_channels, hidden, 1)
        self.heatmaps = nn.Conv2d(hidden, LANDMARKS, 1, bias=False)

    def forward(self, faces: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 98 size/4 size/4"]:
        """Heatmaps of the landmarks of prepared faces (see :func:`prepare`), any numbers."""
        return self.heatmaps(F.relu(self.hidden(self.backbone(faces)), inplace=True))

    def landmarks_of(self, heatmaps: Float[Tensor, "batch 98 rows columns"]) -> Float[Tensor, "batch 98 2"]:
        """Landmarks that heatmaps show, x and y in pixels of the network's input."""
        return expected_cells(heatmaps) * STRIDE

    @torch.no_grad()
    def landmarks(
        self, image: UInt8[Tensor, "height width 3"], box: Float[Tensor, " 4"], *, detected: bool
    ) -> Float64[Tensor, "98 2"]:
        """Find the landmarks of the face in a box.

        Args:
            image: RGB.
            box: corners x1, y1, x2, y2, pixels of the image.
            detected: a detector drew the box; else it is the tight box of the face's landmarks, as in the last frame.

        Returns:
            x and y, pixels of the image (they may lie outside it), in the order of :data:`LANDMARKS`.

        Raises:
            ZooError: if this is no image, or the box is empty, beside the image or far larger.
        """
        corners(box)
        ratio = DETECTED_RATIO if detected else TRACKED_RATIO
        face, origin = cut(image, square_box(box.double(), ratio))
        heatmaps = self(prepare(face, self.input_size).to(next(self.parameters())))
        return place(self.landmarks_of(heatmaps)[0].cpu(), face, self.input_size) + torch.tensor(origin)


def place(
    landmarks: Float[Tensor, "landmarks 2"], face: UInt8[Tensor, "rows columns 3"], size: int = INPUT_SIZE
) -> Float64[Tensor, "landmarks 2"]:
    """Landmarks in pixels of the network's input as those of the cut picture that was squashed to it."""
    rows, columns = face.shape[:2]
    return landmarks.double() * torch.tensor([columns, rows]) / size
