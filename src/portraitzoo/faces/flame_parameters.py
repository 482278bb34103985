"""The numbers that drive a FLAME head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError

SIZES = {"shape": 300, "expression": 100, "pose": 6, "eye_pose": 6}
LABEL_SIZE = sum(SIZES.values())
HEAD_MOTION = 109  # expression, jaw and eyes


@dataclass(frozen=True)
class FlameParameters:
    """A batch of heads; iterating gives the four tensors in the order in which models take them.

    Attributes:
        shape: identity coefficients, about N(0, 1).
        expression: expression coefficients.
        pose: axis-angles (radians) of the neck and of the jaw. FLAME's global rotation is never used here: what files
            call "global" turns the neck.
        eye_pose: axis-angles of the left and the right eyeball.

    Raises:
        ZooError: if a length is wrong, batches differ, or a number is not finite.
    """

    shape: Float[Tensor, "batch 300"]
    expression: Float[Tensor, "batch 100"]
    pose: Float[Tensor, "batch 6"]
    eye_pose: Float[Tensor, "batch 6"]

    def __post_init__(self) -> None:
        for name, size in SIZES.items():
            value = getattr(self, name)
            if value.ndim != 2 or value.shape[1] != size:
                raise ZooError(f"FLAME's {name} needs [batch, {size}] numbers, not {list(value.shape)}")
            if len(value) != len(self.shape):
                raise ZooError(f"FLAME's {name} is of {len(value)} heads, its shape of {len(self.shape)}")
            if not torch.isfinite(value).all():
                raise ZooError(f"FLAME's {name} holds NaN or infinite numbers")

    @classmethod
    def zeros(cls, batch: int, device: torch.device | str | None = None) -> FlameParameters:
        """The mean head with a neutral face, ``batch`` times."""
        return cls(*(torch.zeros(batch, size, device=device) for size in SIZES.values()))

    @classmethod
    def from_label(cls, label: Float[Tensor, "batch 412"]) -> FlameParameters:
        """From rows of shape, expression, pose, eye pose, as the labels of data sets have them behind the camera.

        Raises:
            ZooError: if there are not 412 numbers in a row, or some are not finite.
        """
        if label.ndim != 2 or label.shape[1] != LABEL_SIZE:
            raise ZooError(f"FLAME labels are [batch, {LABEL_SIZE}] numbers, not {list(label.shape)}")
        return cls(*label.split(list(SIZES.values()), dim=1))

    def label(self) -> Float[Tensor, "batch 412"]:
        """Rows of shape, expression, pose, eye pose."""
        return torch.cat(list(self), dim=1)

    def motion(self) -> Float[Tensor, "batch 109"]:
        """Rows of expression, jaw and eyes: what Portrait4D may be driven by in place of a motion embedding."""
        return torch.cat([self.expression, self.pose[:, 3:], self.eye_pose], dim=1)

    def __iter__(self) -> Iterator[Tensor]:
        return (getattr(self, item.name) for item in fields(self))

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | Tensor) -> FlameParameters:
        return FlameParameters(*(value[index] for value in self))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FlameParameters:
        """Copy on another device or in another dtype."""
        return FlameParameters(*(value.to(device, dtype) for value in self))

    def without_neck(self) -> FlameParameters:
        """The same heads with the neck straight."""
        return replace(self, pose=without_neck(self.pose))


def without_neck(pose: Float[Tensor, "batch 6"]) -> Float[Tensor, "batch 6"]:
    """The pose with the neck's rotation set to zero."""
    return torch.cat([torch.zeros_like(pose[:, :3]), pose[:, 3:]], dim=1)
