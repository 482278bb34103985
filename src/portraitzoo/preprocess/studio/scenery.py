"""What surrounds the sitter: lamps and the wall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.preprocess.studio.appearance import srgb
from portraitzoo.preprocess.studio.noise import noise
from portraitzoo.rendering.lighting import ambient, distant, irradiance

BackgroundKind = Literal["plain", "gradient", "textured", "mixed"]


@dataclass(frozen=True)
class Light:
    """Illumination of the stage.

    Attributes:
        environment: spherical-harmonics radiance.
        key: unit direction to the main lamp, for highlights.
        key_colour: its colour.
    """

    environment: Float[Tensor, "9 3"]
    key: Float[Tensor, " 3"]
    key_colour: Float[Tensor, " 3"]


@dataclass(frozen=True)
class Wall:
    """Background: two colours (linear RGB), the direction of their gradient, and the strength of a soft texture."""

    first: Float[Tensor, " 3"]
    second: Float[Tensor, " 3"]
    angle: float
    texture: float
    seed: float

    def picture(self, resolution: int) -> Float[Tensor, "height width 3"]:
        """The wall, the same in every frame of a clip."""
        axis = (torch.arange(resolution) + 0.5) / resolution - 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        across = (x * math.cos(self.angle) + y * math.sin(self.angle) + 0.5).clamp(0, 1)
        if self.texture:
            at = torch.stack([x.reshape(-1), y.reshape(-1)], -1)
            cloud = noise(at * 5 + self.seed, 1, 11) + 0.5 * noise(at * 13 + self.seed, 1, 12)
            across = (across + self.texture * cloud.view_as(across)).clamp(0, 1)
        return self.first + across[..., None] * (self.second - self.first)


def sample_light(random: np.random.Generator) -> Light:
    """A key lamp from the front, softer fill from the other side, sometimes a rim light; always well lit."""
    side = random.choice([-1.0, 1.0])
    yaw, height = side * random.uniform(0.15, 1.1), random.uniform(0.15, 0.85)
    key = _direction(yaw, height)
    warmth = random.normal(0, 0.05)
    key_colour = torch.tensor([1 + warmth, 1.0, 1 - warmth], dtype=torch.float32)
    environment = ambient(random.uniform(0.30, 0.50) * torch.tensor([0.97, 1.0, 1.03]))
    environment = environment + distant(key, random.uniform(0.5, 0.85) * key_colour)
    fill = _direction(-side * random.uniform(0.4, 1.2), random.uniform(-0.2, 0.4))
    environment = environment + distant(fill, random.uniform(0.10, 0.35) * torch.tensor([1 - warmth, 1.0, 1 + warmth]))
    if random.random() < 0.4:
        environment = environment + distant(_direction(-side * 2.4, 0.4), random.uniform(0.1, 0.4) * torch.ones(3))
    exposure = random.uniform(0.80, 1.0) / irradiance(environment, torch.tensor([0.0, 0.0, 1.0])).mean()
    return Light(environment * exposure, key, key_colour * 0.9)


_WALLS = [
    (205, 208, 212),
    (178, 186, 196),
    (214, 206, 194),
    (150, 162, 174),
    (186, 196, 186),
    (120, 128, 140),
    (232, 232, 230),
]


def sample_wall(random: np.random.Generator, kind: BackgroundKind) -> Wall:
    """A wall of muted colour; ``mixed`` draws one of the other kinds."""
    chosen = str(random.choice(["plain", "gradient", "textured"], p=[0.5, 0.3, 0.2])) if kind == "mixed" else kind
    first = torch.from_numpy(srgb(*_WALLS[random.integers(len(_WALLS))]) * random.uniform(0.85, 1.1)).float()
    other = torch.from_numpy(srgb(*_WALLS[random.integers(len(_WALLS))]) * random.uniform(0.5, 1.0)).float()
    return Wall(
        first=first.clamp(0, 0.92),
        second=first.clamp(0, 0.92) if chosen == "plain" else other.clamp(0, 0.92),
        angle=float(random.uniform(0, 2 * math.pi)),
        texture=float(random.uniform(0.15, 0.4)) if chosen == "textured" else 0.0,
        seed=float(random.uniform(0, 32)),
    )


def _direction(yaw: float, height: float) -> Float[Tensor, " 3"]:
    return torch.tensor(
        [math.sin(yaw) * math.cos(height), math.sin(height), math.cos(yaw) * math.cos(height)], dtype=torch.float32
    )
