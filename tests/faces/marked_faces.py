"""Pictures whose "faces" are red squares, and a tracker that sees them: everything but its eyes is the real thing."""

import torch
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.alignment import FIVE_OF_98, TEMPLATE
from portraitzoo.faces.bfm_to_flame import BfmToFlame
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.faces.motion_embedding import MotionEncoder
from portraitzoo.faces.portrait_tracker import PortraitTracker
from portraitzoo.faces.retinaface import Detections

HALF = 6  # of a square's side
FACE = 30.0  # pixels per unit of the template


def picture(*centres: tuple[int, int], height: int = 120, width: int = 160, seed: int = 0) -> Tensor:
    """Dim noise with a red square at each centre (x, y); the first is bright, and a detector prefers it."""
    image = torch.randint(0, 90, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    for place, (x, y) in enumerate(centres):
        square = image[y - HALF : y + HALF, x - HALF : x + HALF]
        square[:] = torch.tensor([220 if place else 255, 0, 0], dtype=torch.uint8)
    return image


def centre_of(image: Tensor, box: Tensor | None = None) -> Tensor | None:
    """Middle of the bright square, or of all red pixels in a box; None if there is none."""
    red = (image[..., 0] > (240 if box is None else 200)) & (image[..., 1] < 50)
    rows, columns = red.nonzero(as_tuple=True)
    points = torch.stack([columns, rows], dim=1).double()
    if box is not None:
        points = points[((points >= box[:2]) & (points <= box[2:])).all(dim=1)]
    return points.mean(0) + 0.5 if len(points) else None


class Detector(nn.Module):
    """Finds the red square; counts how often it looked."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = 0

    def detect(self, image: Tensor) -> Detections:
        self.looked += 1
        centre = centre_of(image)
        boxes = torch.zeros(0, 4).double() if centre is None else torch.cat([centre - 24, centre + 24])[None]
        return Detections(boxes, torch.ones(len(boxes)).double(), torch.zeros(len(boxes), 5, 2).double())


class Contour(nn.Module):
    """98 landmarks around the square: the five that count where a frontal face has them."""

    def landmarks(self, image: Tensor, box: Tensor, *, detected: bool) -> Tensor:
        centre = _seen(image, box)
        angle = torch.linspace(0, 6.2, 98).double()
        points = torch.stack([angle.cos(), angle.sin()], dim=1) * 24
        points[list(FIVE_OF_98)] = torch.tensor(TEMPLATE).double()[:, :2] * torch.tensor([1.0, -1.0]) * FACE
        return centre + points


class Landmarks(nn.Module):
    """68 landmarks around the square."""

    def landmarks(self, image: Tensor, box: Tensor) -> Tensor:
        angle = torch.linspace(0, 6.2, 68).double()
        return _seen(image, box) + torch.stack([angle.cos(), angle.sin()], dim=1) * 20


def _seen(image: Tensor, box: Tensor) -> Tensor:
    centre = centre_of(image, box)
    if centre is None:
        raise ZooError("there is no face in the box")
    return centre


def marked_tracker() -> PortraitTracker:
    """A tracker of red squares with small networks behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        regressor = Deep3D(depths=(1, 1, 1, 1), widths=(4, 4, 8, 8))
        mapper, motion = BfmToFlame(width=8), MotionEncoder(width=16, landmarks=6, features=512)
        nn.init.normal_(mapper.output.weight, std=0.1)
    tracker = PortraitTracker(Detector(), Contour(), Landmarks(), regressor, mapper, motion)  # type: ignore[arg-type]
    return tracker.eval().requires_grad_(False)
