"""Face parsing, face models and the landmark fit at small sizes against their own recorded outputs."""

import sys
from pathlib import Path

import pytest
import torch
from recorded import compare, numbers
from torch import Tensor, nn

sys.path.append(
    str(Path(__file__).resolve().parents[1] / "faces")
)  # the made-up models live beside the faces' own tests
from toy_face import patch
from toy_head import toy_arrays

from portraitzoo.faces.bfm import BaselFace
from portraitzoo.faces.bfm_to_flame import BfmToFlame, flame_label
from portraitzoo.faces.coefficients import FaceCoefficients
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.landmark_fit import FitSettings, LandmarkFit
from portraitzoo.faces.landmark_loss import fit_target
from portraitzoo.faces.parsing import BiSeNet, normalise
from portraitzoo.layers.conv_norm import fold_batch_norms

RECORD = Path(__file__).with_name("face_models_small.npz")


def fill(network: nn.Module, prefix: str) -> nn.Module:
    """Weights of about the size of trained ones, norms that do something."""
    for name, tensor in network.state_dict().items():
        value = numbers(f"{prefix}.{name}", *tensor.shape)
        if tensor.ndim > 1:
            value = value * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            value = 1 + value.abs() * 0.1
        else:
            value = value * 0.1
        tensor.copy_(value)
    return network.eval().requires_grad_(False)


def parse() -> dict[str, Tensor]:
    network = fill(BiSeNet((2, 1, 1, 1), (8, 12, 16, 20), stem=8, context=8, fused=12, auxiliary=6), "parsing")
    image = normalise(numbers("picture", 2, 3, 12, 12).repeat_interleave(8, 2).repeat_interleave(8, 3) * 0.2 + 0.5)
    outer, inner = network.auxiliary(image)
    found = {"parsing.eighth": outer[:, :, ::16, ::16], "parsing.sixteenth": inner[:, :, ::16, ::16]}
    return found | {"parsing.logits": fold_batch_norms(network)(image)[:, :, ::8, ::8]}


def describe() -> dict[str, Tensor]:
    mapper = fill(BfmToFlame(width=24), "mapper")
    return {"label": flame_label(FaceCoefficients.from_vector(numbers("coefficients", 3, 257) * 0.4), mapper)}


def face() -> dict[str, Tensor]:
    faces = FaceCoefficients.from_vector(numbers("coefficients", 3, 257) * 0.3)
    models = {"constant": BaselFace(patch()), "mean": BaselFace(patch(), "mean")}
    kinds = ("posed", "lit_colours", "landmarks")
    return {f"{name}.{kind}": getattr(model, kind)(faces) for name, model in models.items() for kind in kinds}


def fit() -> dict[str, Tensor]:
    head = FlameHead.from_arrays(toy_arrays())
    start = FlameParameters(
        *(numbers(name, 2, size) * 0.1 for name, size in {"s": 300, "e": 100, "p": 6, "y": 6}.items())
    )
    target = fit_target(256 + 60 * numbers("points98", 2, 98, 2), 256 + 60 * numbers("points68", 2, 68, 2))
    found = LandmarkFit.of_head(head).fit(start, target, settings=FitSettings(8, 8))
    clip = LandmarkFit.of_head(head).fit(start, target, one_person=True, settings=FitSettings(8, 8))
    return {
        "fit.label": found.labels(),
        "fit.losses": torch.cat(found.losses),
        "clip.label": clip.labels(),
        "clip.losses": torch.cat(clip.losses),
    }


@pytest.mark.parametrize("part", [parse, describe, face], ids=["parsing", "mapper", "face"])
def test_outputs_are_those_recorded(part) -> None:
    compare(RECORD, part())


def test_fits_are_those_recorded() -> None:
    # Where a gradient is nearly zero rounding decides which way Adam's step of 0.001 goes.
    compare(RECORD, fit(), share=0.98, worst=1e-3)
