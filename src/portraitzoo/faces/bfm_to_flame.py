"""From the Basel face model's coefficients to FLAME's: Portrait4D's mapper and its first guess of a frame's label.

Portrait-4D (Deng et al., CVPR 2024), data preparation: a small network trained on pairs of fits to FFHQ gives shape,
expression and jaw; the head's turn is that of the Basel face model, corrected for the different frontal pose.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.faces.flame_arrays import NUM_EXPRESSION, NUM_SHAPE
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.rotations import euler_rotation
from portraitzoo.faces.tracked_camera import tracked_camera

FRONTAL_TURN = (0.08489475, 0.002882, 0.00353599)
"""Angles about x, y and z by which FLAME's frontal head is turned against the Basel face model's, radians."""
TRANSLATION = (0.0, -0.01, -4.2)
"""Of every head in camera coordinates, for coefficients do not tell FLAME's size from its distance."""
JAW = 3
_SLOPE = 0.01


class BfmToFlame(nn.Module):
    """Two linear layers from identity and expression of the Basel face model to shape, expression and jaw of FLAME.

    Args:
        width: of the hidden layer.
    """

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.hidden = nn.Linear(SIZES["identity"] + SIZES["expression"], width)
        self.output = nn.Linear(width, NUM_SHAPE + NUM_EXPRESSION + JAW)
        nn.init.zeros_(self.output.weight)

    def forward(self, identity: Float[Tensor, "batch 80"], expression: Float[Tensor, "batch 64"]) -> FlameParameters:
        """Heads with straight necks that look ahead.

        Args:
            identity: coefficients of shape, as they are.
            expression: of expression.

        Raises:
            ZooError: for another number of coefficients, or if some are not finite.
        """
        given = torch.cat([identity, expression], dim=1)
        if given.shape[1] != self.hidden.in_features:
            raise ZooError(f"the mapper to FLAME takes {self.hidden.in_features} coefficients, not {given.shape[1]}")
        found = self.output(nn.functional.leaky_relu(self.hidden(given), _SLOPE))
        shape, mapped, jaw = found.split([NUM_SHAPE, NUM_EXPRESSION, JAW], dim=1)
        still = torch.zeros_like(jaw)
        return FlameParameters(shape, mapped, torch.cat([still, jaw], dim=1), torch.cat([still, still], dim=1))


def flame_turn(angles: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3"]:
    """Axis-angles (radians, float64) with which FLAME's head is turned as the Basel face model's.

    Args:
        angles: of the Basel face model about x, y and z, radians.
    """
    correction = euler_rotation(torch.tensor(FRONTAL_TURN, dtype=torch.float64))
    turned = correction @ euler_rotation(angles.detach().double().cpu())
    return torch.from_numpy(Rotation.from_matrix(turned.numpy()).as_rotvec()).to(angles.device)


@torch.no_grad()
def flame_label(coefficients: FaceCoefficients, mapper: BfmToFlame | None = None) -> Float[Tensor, "batch 437"]:
    """What Portrait4D's data files say of a frame, from a regressor's coefficients alone ("simplified").

    Args:
        coefficients: of the faces.
        mapper: gives shape, expression and jaw, which are zero without it.

    Returns:
        Camera (OpenGL axes, 25 numbers), then shape, expression, turn of the head, jaw and eyes (412).

    Raises:
        ZooError: if a coefficient is not finite.
    """
    if not torch.isfinite(coefficients.vector()).all():
        raise ZooError("face coefficients hold NaN or infinite numbers: there was no face to look at")
    turn = flame_turn(coefficients.angles).to(coefficients.angles)
    if mapper is None:
        head = FlameParameters.zeros(len(turn), turn.device)
    else:
        head = mapper(coefficients.identity, coefficients.expression)
    pose = torch.cat([turn, head.pose[:, JAW:]], dim=1)
    posed = FlameParameters(head.shape, head.expression, pose, head.eye_pose)
    return torch.cat([tracked_camera(turn, turn.new_tensor(TRANSLATION).expand_as(turn)), posed.label()], dim=1)
