"""How a person is coloured: skin, lips, eyes, hair, brows, clothes. All colours are linear RGB."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from portraitzoo.preprocess.studio.identity import Identity

Colour = tuple[float, float, float]


def srgb(red: float, green: float, blue: float) -> np.ndarray:
    """Linear colour of an sRGB one given in 0..255."""
    value = np.array([red, green, blue]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


# From light to dark; a tone in between is mixed from its neighbours.
_SKIN = [
    srgb(*c) for c in ((246, 219, 199), (233, 194, 166), (218, 170, 133), (190, 138, 98), (146, 98, 66), (98, 62, 44))
]
_EYES = [srgb(*c) for c in ((78, 48, 28), (96, 62, 34), (120, 92, 52), (98, 112, 68), (92, 128, 150), (118, 146, 166))]
_HAIR = [
    srgb(*c)
    for c in ((22, 18, 17), (40, 28, 22), (70, 46, 30), (104, 72, 44), (150, 112, 66), (196, 160, 104), (132, 62, 34))
]
_GREY = srgb(176, 174, 172)
_CLOTHES = [
    srgb(*c)
    for c in (
        (34, 42, 62), (58, 58, 62), (226, 224, 218), (132, 34, 42), (44, 84, 74), (92, 112, 146), (176, 150, 116),
        (24, 24, 26), (118, 84, 112), (64, 98, 152),
    )
]  # fmt: skip


@dataclass(frozen=True)
class Appearance:
    """Colours (linear RGB in [0, 1]) and the small things of a face.

    Attributes:
        skin: mean albedo of the face.
        lips: albedo of the lips.
        iris: albedo of the irises.
        hair: albedo of the hair.
        brow: albedo of the brows.
        clothes: albedo of the clothes.
        blush: redness of cheeks, nose and ears, 0 to 1.
        freckles: 0 to 1.
        beard: shadow of a beard, 0 to 1.
        brow_density: 0 to 1.
        brow_width: factor of the brows' thickness.
        iris_angle: half the angle that the iris takes on the eyeball, radians.
        shine: strength of the skin's highlights.
        neckline: height of the collar in world units below the chin's level.
        texture_shift: place in the noise fields, so that no two skins are alike.
    """

    skin: Colour
    lips: Colour
    iris: Colour
    hair: Colour
    brow: Colour
    clothes: Colour
    blush: float
    freckles: float
    beard: float
    brow_density: float
    brow_width: float
    iris_angle: float
    shine: float
    neckline: float
    texture_shift: float


def sample_appearance(random: np.random.Generator, identity: Identity) -> Appearance:
    """Colours that go with a person's ancestry, age and gender; the ranges overlap as they do in life."""
    phenotype = identity.phenotype
    darkness = phenotype["african"] * 4.3 + phenotype["asian"] * 1.9 + phenotype["caucasian"] * 0.8
    tone = float(np.clip(darkness + random.normal(0, 0.6), 0, len(_SKIN) - 1.001))
    skin = _between(_SKIN, tone) * random.uniform(0.92, 1.06) * random.uniform(0.98, 1.02, 3)
    female = identity.femininity > 0.5
    lips = skin * np.array([0.88, 0.66, 0.66]) * random.uniform(0.85, 1.05)
    if female and random.random() < 0.6:  # lipstick
        stick = srgb(*[(176, 62, 70), (190, 84, 92), (150, 48, 62), (200, 104, 100)][random.integers(4)])
        lips = lips + random.uniform(0.25, 0.75) * (stick * (0.45 + 0.55 * skin.mean() / 0.5) - lips)
    fair = phenotype["caucasian"] > 0.45
    iris = _between(_EYES, random.uniform(0, 4.99) if fair else random.beta(1, 3) * 2)
    hair = _HAIR[random.integers(len(_HAIR))] if fair else _between(_HAIR, random.beta(1, 2.5) * 2.5)
    hair = hair * random.uniform(0.8, 1.2)
    grey = np.clip(random.normal(identity.age * 1.5 - 0.85, 0.25), 0, 1)
    brow = hair * 0.75 + 0.25 * _HAIR[1]
    return Appearance(
        skin=_colour(skin),
        lips=_colour(lips),
        iris=_colour(iris),
        hair=_colour(hair + grey * (_GREY * random.uniform(0.7, 1.2) - hair)),
        brow=_colour(brow + 0.6 * grey * (_GREY * 0.6 - brow)),
        clothes=_colour(_CLOTHES[random.integers(len(_CLOTHES))] * random.uniform(0.8, 1.2)),
        blush=float(random.uniform(0.15, 0.8)),
        freckles=float(random.uniform(0.3, 1.0)) if tone < 1.5 and random.random() < 0.25 else 0.0,
        beard=float(random.uniform(0.1, 0.9)) if not female and random.random() < 0.65 else 0.0,
        brow_density=float(random.uniform(0.5, 0.9)),
        brow_width=float(random.uniform(0.75, 1.05) if female else random.uniform(0.95, 1.35)),
        iris_angle=float(random.uniform(0.47, 0.53)),
        shine=float(random.uniform(0.35, 1.0)),
        neckline=float(random.uniform(-0.08, 0.10)),
        texture_shift=float(random.uniform(0, 32)),
    )


def _between(palette: list[np.ndarray], place: float) -> np.ndarray:
    low = min(int(place), len(palette) - 2)
    return palette[low] + (place - low) * (palette[low + 1] - palette[low])


def _colour(value: np.ndarray) -> Colour:
    red, green, blue = np.clip(value, 0.004, 0.95).tolist()
    return red, green, blue
