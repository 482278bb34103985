"""The numbers with which Deep3DFaceRecon describes a face (Deng et al., CVPRW 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

SIZES = {"identity": 80, "expression": 64, "texture": 80, "angles": 3, "light": 27, "translation": 3}
COEFFICIENTS = sum(SIZES.values())


@dataclass(frozen=True)
class FaceCoefficients:
    """A batch of faces in terms of the Basel face model, a pose and a light.

    Attributes:
        identity: of the model's shape.
        expression: of the model's expression.
        texture: of the model's texture.
        angles: rotation about x, y and z, radians.
        light: spherical harmonics of red, green and blue, nine each.
        translation: of the head, in the model's unit (a decimetre); the camera is 10 in front of the origin.

    Raises:
        ZooError: if a length is wrong, or batches differ.
    """

    identity: Float[Tensor, "batch 80"]
    expression: Float[Tensor, "batch 64"]
    texture: Float[Tensor, "batch 80"]
    angles: Float[Tensor, "batch 3"]
    light: Float[Tensor, "batch 27"]
    translation: Float[Tensor, "batch 3"]

    def __post_init__(self) -> None:
        for name, size in SIZES.items():
            value = getattr(self, name)
            if value.ndim != 2 or value.shape[1] != size or len(value) != len(self.identity):
                raise ZooError(
                    f"{name} of {len(self.identity)} faces needs [batch, {size}] numbers, not {list(value.shape)}"
                )

    @classmethod
    def from_vector(cls, vector: Float[Tensor, "batch 257"]) -> FaceCoefficients:
        """From rows of all numbers in the order of the attributes, as the regressor gives them.

        Raises:
            ZooError: if there are not 257 numbers in a row.
        """
        if vector.ndim != 2 or vector.shape[1] != COEFFICIENTS:
            raise ZooError(f"face coefficients are [batch, {COEFFICIENTS}] numbers, not {list(vector.shape)}")
        return cls(*vector.split(list(SIZES.values()), dim=1))

    def vector(self) -> Float[Tensor, "batch 257"]:
        """Rows of all numbers in the order of the attributes."""
        return torch.cat([getattr(self, item.name) for item in fields(self)], dim=1)

    def __len__(self) -> int:
        return len(self.identity)
