"""Small networks of face detection and of 98 landmarks against their own recorded outputs.

In double precision: which boxes stay and which cells are best hangs on comparisons that rounding must not decide.
"""

from pathlib import Path

import pytest
import torch
from recorded import compare, fill_measuring, numbers
from torch import Tensor

from portraitzoo.faces.boxes import cut, decode_boxes, decode_points, priors, square_box, suppress
from portraitzoo.faces.h3r import H3R, prepare
from portraitzoo.faces.retinaface import RetinaFace
from portraitzoo.faces.retinaface import prepare as prepare_picture

RECORD = Path(__file__).with_name("detection_small.npz")


def picture() -> Tensor:
    coarse = (numbers("picture", 9, 13, 3).sigmoid() * 255).to(torch.uint8)
    return coarse.repeat_interleave(10, 0).repeat_interleave(10, 1)


@torch.no_grad()
def detection() -> dict[str, Tensor]:
    found = {}
    for name, channels in {"leaky": 24, "wide": 72}.items():
        network = fill_measuring(RetinaFace((1, 2, 1, 1), (4, 6, 8, 10), stem=8, channels=channels), f"retina.{name}")
        images = prepare_picture(picture(), 64)
        answers, anchors = network.double()(images.double() / 64), priors(*images.shape[-2:])
        boxes = decode_boxes(answers.boxes[0], anchors)
        order = answers.scores[0].argsort(descending=True)
        found |= {
            f"{name}.scores": answers.scores,
            f"{name}.boxes": boxes[::3],
            f"{name}.points": decode_points(answers.points[0], anchors)[::5],
            f"{name}.kept": suppress(boxes[order] * 64, 0.4),
        }
    return found


@torch.no_grad()
def landmarks() -> dict[str, Tensor]:
    widths, depths = ((4,), (4, 6), (4, 6, 8), (4, 6, 8, 10)), ((2,), (1, 2), (1, 1, 1), (2, 1, 1, 1))
    network = fill_measuring(H3R(widths, depths, (1, 1, 2, 1), hidden=20, input_size=96), "h3r")
    face, _ = cut(picture(), square_box(torch.tensor([30.0, 10.0, 90.0, 99.0]), 1.5))
    seen = prepare(face, 96)
    heatmaps = network.double()(seen.double())
    return {
        "seen": seen[:, :, ::7, ::7],
        "heatmaps": heatmaps[:, ::7, ::2, ::2],
        "landmarks": network.landmarks_of(heatmaps),
    }


@pytest.mark.parametrize("part", [detection, landmarks])
def test_outputs_are_those_recorded(part) -> None:
    compare(RECORD, {name: value.float() for name, value in part().items()})
