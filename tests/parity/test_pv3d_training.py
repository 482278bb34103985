import pytest

import pv3d_training
from reference import Arrays, function_groups, parameters, reference_folder

GROUPS = [group for group in function_groups("pv3d") if group in pv3d_training.FUNCTIONS]


@pytest.mark.parametrize("group", parameters(GROUPS, "PV3D training functions"))
def test_function(group: str) -> None:
    folder = reference_folder("pv3d")
    assert folder is not None
    pv3d_training.FUNCTIONS[group](Arrays(folder / "functions.npz", f"pv3d/functions/{group}"))
