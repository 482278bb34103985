"""Small networks of 68 landmarks, their depth and face coefficients against their own recorded outputs."""

from pathlib import Path

import pytest
import torch
from recorded import compare, fill_measuring, numbers
from torch import Tensor

from portraitzoo.faces.alignment import coefficient_crop, eg3d_crop, portrait_crop
from portraitzoo.faces.coefficient_camera import camera_of_pose
from portraitzoo.faces.deep3d import Deep3D
from portraitzoo.faces.fan import FAN, decode
from portraitzoo.faces.fan_depth import FanDepth

RECORD = Path(__file__).with_name("landmarks_small.npz")


@torch.no_grad()
def landmarks() -> dict[str, Tensor]:
    network = fill_measuring(FAN(stacks=2, width=16, stem=8, landmarks=12), "fan")
    depth = fill_measuring(FanDepth((1, 2, 1, 1), (4, 6, 8, 10), landmarks=12), "depth")
    images = numbers("faces", 2, 3, 256, 256).sigmoid()
    maps = network(images)
    return {
        "maps": maps[:, ::3, ::4, ::4],
        "scores": decode(maps)[1],
        "depth": depth(images, numbers("at", 2, 12, 2) * 9 + 32),
    }


@torch.no_grad()
def coefficients() -> dict[str, Tensor]:
    found = fill_measuring(Deep3D((1, 2, 1, 1), (4, 6, 8, 10)), "deep3d")(numbers("crops", 2, 3, 96, 96).sigmoid())
    camera = camera_of_pose(found.angles, found.translation)
    return {"coefficients": found.vector(), "label": camera.label()}


def crops() -> dict[str, Tensor]:
    coarse = (numbers("picture", 12, 10, 3).sigmoid() * 255).to(torch.uint8)
    picture = coarse.repeat_interleave(20, 0).repeat_interleave(20, 1)
    five = torch.tensor([[70.0, 80.0], [110.0, 84.0], [88.0, 104.0], [72.0, 128.0], [102.0, 131.0]])
    found = {}
    for name, crop in {"portrait": portrait_crop, "coefficient": coefficient_crop, "eg3d": eg3d_crop}.items():
        made = crop(picture, five)
        found |= {f"{name}.image": made.image[::16, ::16].float(), f"{name}.five": made.move(five)}
    return found


@pytest.mark.parametrize("part", [landmarks, coefficients, crops])
def test_outputs_are_those_recorded(part) -> None:
    compare(RECORD, part())
