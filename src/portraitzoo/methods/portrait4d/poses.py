"""Poses of heads in clips, as Portrait4D trains on them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

RIGHT_EYE, LEFT_EYE = ((37, 41), (38, 40), (36, 39)), ((43, 47), (44, 46), (42, 45))
"""Landmarks: two pairs of upper and lower lid, then the corners."""
OPEN_EYES = 0.3
CLOSED_SCALE, SCALE_GAIN = 0.97, 0.1


def rectified_necks(necks: Float[Tensor, "frames 3"]) -> Float[Tensor, "frames 3"]:
    """Neck rotations of a clip without its mean turn to the side and mean tilt, so that it looks ahead on average.

    Args:
        necks: axis-angles in radians, of all frames.
    """
    rotations = Rotation.from_rotvec(necks.double().numpy())
    _, turn, tilt = rotations.as_euler("xyz").mean(axis=0)
    straight = Rotation.from_euler("xyz", [0.0, turn, tilt]).inv() * rotations
    return torch.from_numpy(straight.as_rotvec()).to(necks)


def eye_opening(landmarks: Float[Tensor, "batch landmarks 2"]) -> Float[Tensor, " batch"]:
    """How far the eyes are open: mean height over mean width.

    Args:
        landmarks: 68 or more in iBUG's order, seen from the front, in any unit.
    """

    def length(first: int, second: int) -> Tensor:
        return torch.linalg.vector_norm(landmarks[:, first] - landmarks[:, second], dim=-1)

    heights = torch.stack([length(*pair) for eye in (RIGHT_EYE, LEFT_EYE) for pair in eye[:2]]).mean(dim=0)
    return heights / torch.stack([length(*eye[2]) for eye in (RIGHT_EYE, LEFT_EYE)]).mean(dim=0)


def teacher_box_scale(opening: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """How large the tri-planes' cube is for the frozen static network that teaches v2: smaller for closed eyes.

    Args:
        opening: of the eyes, see :func:`eye_opening`.
    """
    return (CLOSED_SCALE + SCALE_GAIN * opening.clamp(0, OPEN_EYES)).clamp(CLOSED_SCALE, 1)
