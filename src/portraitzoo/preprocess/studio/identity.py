"""Who sits in the studio: a random shape of the head, and its place in PV3D's world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.anny import HeadModel, Region

# How strongly each local change varies (standard deviation; clipped at twice that). Shapes that MakeHuman exaggerates,
# and those that would take the head out of place, get little or nothing.
_SPREAD = {
    "cheek": 0.3,
    "chin": 0.28,
    "ear": 0.3,
    "eye": 0.25,
    "eyebrows": 0.3,
    "forehead": 0.3,
    "head": 0.2,
    "mouth": 0.22,
    "neck": 0.2,
    "nose": 0.24,
}
_STILL = (
    "trans",
    "shape",
    "push",
    "septumangle",
    "prognathism",
    "angle-out",
    "cleft",
    "jaw-drop",
    "nubian",
    "head-age",
)

# Where an aligned head lies in the world of PV3D's cameras (the frame shows about -0.3 to 0.3): the midpoint between
# the eyeballs, and the scale at which a head of the template's proportions fills the picture as in EG3D's crops.
EYES = torch.tensor([0.0, 0.012, 0.185])
_SCALE, _EYE_DISTANCE, _EYES_TO_MOUTH = 2.4, 0.0562, 0.0685


@dataclass(frozen=True)
class Identity:
    """Parameters of one person's shape.

    Attributes:
        phenotype: Anny's phenotype values in [0, 1].
        local_changes: Anny's local changes in [-1, 1].
    """

    phenotype: dict[str, float]
    local_changes: dict[str, float]

    @property
    def age(self) -> float:
        """0 at twenty, 1 in old age, below 0 for the young."""
        return (self.phenotype["age"] - 2 / 3) * 3

    @property
    def femininity(self) -> float:
        """0 male to 1 female."""
        return self.phenotype["gender"]


def sample_identity(random: np.random.Generator, head: HeadModel) -> Identity:
    """A random person: any ancestry and gender, from about fourteen to old age."""
    ancestry = random.dirichlet([0.5, 0.5, 0.5])
    gender = random.random()
    gender = 0.5 + 0.5 * np.sign(gender - 0.5) * abs(2 * gender - 1) ** 0.3  # mostly clearly one or the other
    phenotype = {
        "gender": float(gender),
        "age": float(np.clip(random.beta(1.3, 2.2) * 0.42 + 0.58, 0.5, 0.97)),
        "muscle": float(random.uniform(0.3, 0.7)),
        "weight": float(np.clip(random.normal(0.5, 0.17), 0.15, 0.95)),
        "african": float(ancestry[0]),
        "asian": float(ancestry[1]),
        "caucasian": float(ancestry[2]),
    }
    changes: dict[str, float] = {}
    for label in head.local_labels:
        part = label.removeprefix("l-").removeprefix("r-")
        if any(word in part for word in _STILL):
            continue
        spread = _SPREAD[part.partition("-")[0]]
        if label.startswith("r-"):  # faces are almost symmetric
            base = changes.get("l-" + part, 0.0)
            changes[label] = float(np.clip(base + random.normal(0, 0.05), -1, 1))
        else:
            changes[label] = float(np.clip(random.normal(0, spread), -2 * spread, 2 * spread))
    return Identity(phenotype, changes)


def place(neutral: Float[Tensor, "vertices 3"], head: HeadModel) -> tuple[float, Float[Tensor, " 3"]]:
    """Scale and shift that put a head where PV3D's cameras expect it: ``world = scale * vertices + shift``.

    As in FFHQ's alignment the size follows from the distances between the eyes and from the eyes to the mouth.
    """
    left, right = (neutral[head.vertices_of(region)].mean(0) for region in (Region.LEFT_EYE, Region.RIGHT_EYE))
    mouth = neutral[[head.landmarks["left_mouth_corner"], head.landmarks["right_mouth_corner"]]].mean(0)
    eyes = (left + right) / 2
    scale = _SCALE / (0.4 * (left - right).norm() / _EYE_DISTANCE + 0.6 * (eyes[1] - mouth[1]) / _EYES_TO_MOUTH)
    return float(scale), EYES - scale * eyes
