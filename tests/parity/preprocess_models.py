"""What the reference numbers say of face models: parsing, the Basel face model, FLAME's parameters, filters."""

from collections.abc import Callable

import torch
from reference import Arrays, Case, assert_close, captured, reference_folder, state_dict
from torch import nn

from portraitzoo.faces.bfm_to_flame import BfmToFlame, flame_label, flame_turn
from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.faces.rotations import euler_rotation, rotation_matrix
from portraitzoo.faces.tracked_camera import intrinsics
from portraitzoo.hub.conversion import Conversion
from portraitzoo.hub.faces import bfm_to_flame as mapper_weights

FUNCTION = 1e-5


def loaded(network: Callable[..., nn.Module], conversion: Conversion) -> nn.Module:
    built = network(**conversion.config)
    built.load_state_dict(conversion.tensors["model"])
    return built.eval()


def check_mapper(case: Case) -> None:
    mapper = loaded(BfmToFlame, mapper_weights.convert(case.state_dict()))
    given = case.golden["in.coeff"].split([SIZES["identity"], SIZES["expression"]], dim=1)
    with captured({"hidden": mapper.hidden}) as outputs, torch.no_grad():
        head = mapper(*given)
    case.golden.check("mid.hidden", nn.functional.leaky_relu(outputs["hidden"], 0.01))
    case.golden.check("out.params", torch.cat([head.shape, head.expression, head.pose[:, 3:]], dim=1))


def check_bfm2flame(arrays: Arrays) -> None:
    angles = arrays["angles"]
    arrays.check("rotation", euler_rotation(angles), FUNCTION)
    assert_close(rotation_matrix(arrays["pose"]), arrays["rotation"], FUNCTION, f"{arrays.case}/pose")
    arrays.check("pose_rectified", flame_turn(angles), FUNCTION)
    arrays.check("intrinsics", intrinsics(), FUNCTION)

    released = reference_folder("preprocess") / "bfm2flame_mlp" / "manifest.json"
    mapper = loaded(BfmToFlame, mapper_weights.convert(state_dict(released)))
    given = {"identity": arrays["file.id"], "expression": arrays["file.exp"], "angles": arrays["file.angle"]}
    rest = {name: torch.zeros(len(given["angles"]), size) for name, size in SIZES.items() if name not in given}
    faces = FaceCoefficients(**given, **rest)
    arrays.check("file.params", flame_label(faces, mapper), FUNCTION)
    arrays.check("file.params_no_mapper", flame_label(faces), FUNCTION)


NETWORKS: dict[str, Callable[[Case], None]] = {"bfm2flame_mlp": check_mapper}
FUNCTIONS: dict[str, Callable[[Arrays], None]] = {"bfm2flame": check_bfm2flame}
