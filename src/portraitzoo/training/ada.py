"""The augmentations of adaptive discriminator augmentation (ADA; Karras et al., NeurIPS 2020, appendix B).

Every transformation has a strength of its own and is applied to a picture with a probability; which pictures and how
much is drawn in :class:`AdaDraws`. Geometric transformations are collected into one matrix and colour transformations
into another, so that pictures are resampled once, between wavelet filters that keep aliasing away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""Low-pass filter of the symlet wavelet with 6 vanishing moments; the geometric transformations' (appendix B.2)."""

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
"""That with 2; the filter bank is made of it (appendix B.3)."""

EXPECTED_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Share of each frequency band in the power of natural pictures, low frequencies first."""

MARGIN = len(SYM6) // 4

Draw = Float[Tensor, " batch"]


@dataclass(frozen=True)
class AdaStrengths:
    """Probability of each transformation, as a share of the overall one; 0 leaves it out. Group names are ADA's.

    Attributes:
        xflip: mirroring.
        rotate90: turning by quarters.
        xint: moving by whole pixels.
        scale: zooming.
        rotate: turning by any angle.
        aniso: stretching.
        xfrac: moving by fractions of pixels.
        brightness: adding to all channels.
        contrast: multiplying all channels.
        lumaflip: inverting the luma.
        hue: turning colours about the luma axis.
        saturation: scaling their distance from it.
        imgfilter: amplifying frequency bands.
        cutout: blacking out a square.
    """

    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    imgfilter: float = 0.0
    cutout: float = 0.0


@dataclass(frozen=True)
class AdaDraws:
    """How each picture changes; None leaves a transformation out, the neutral value a picture as it is.

    Attributes:
        mirrored: 1 to mirror, else 0.
        quarters: quarter turns, counter-clockwise.
        shift: whole-pixel shift to the right and down, in pixels.
        zoom: binary logarithm of the factor.
        turn: angle in radians, before stretching.
        stretch: binary logarithm of the factor of the width, and of the inverse one of the height.
        turn_after: angle in radians, after stretching.
        drift: shift to the right and down, in pixels.
        brightness: added.
        contrast: binary logarithm of the factor.
        inverted: 1 to invert the luma, else 0.
        hue: angle in radians.
        saturation: binary logarithm of the factor.
        bands: binary logarithms of the frequency bands' factors.
        hole: centre of the square (across, down, in shares of the side) and its side.
    """

    mirrored: Draw | None = None
    quarters: Draw | None = None
    shift: Float[Tensor, "batch 2"] | None = None
    zoom: Draw | None = None
    turn: Draw | None = None
    stretch: Draw | None = None
    turn_after: Draw | None = None
    drift: Float[Tensor, "batch 2"] | None = None
    brightness: Draw | None = None
    contrast: Draw | None = None
    inverted: Draw | None = None
    hue: Draw | None = None
    saturation: Draw | None = None
    bands: Float[Tensor, "batch 4"] | None = None
    hole: Float[Tensor, "batch 3"] | None = None

    @classmethod
    def fresh(
        cls, strengths: AdaStrengths, probability: float, size: int, generators: Sequence[torch.Generator]
    ) -> AdaDraws:
        """New random numbers with the published spreads, each picture's from a generator of its own.

        Args:
            strengths: which transformations there are.
            probability: overall probability, which training adapts.
            size: side of the pictures, pixels.
            generators: one for each picture.
        """
        rows = [_drawn(strengths, probability, size, generator) for generator in generators]
        names = [name for name, value in rows[0].items() if value is not None]
        return cls(**{name: torch.stack([row[name] for row in rows]) for name in names})  # type: ignore[misc]


def geometry_filter(like: Tensor) -> Float[Tensor, " taps"]:
    """Low-pass filter of geometric transformations, of sum 1."""
    taps = torch.tensor(SYM6, dtype=like.dtype, device=like.device)
    return taps / taps.sum()


def filter_bank(like: Tensor) -> Float[Tensor, "4 43"]:
    """Zero-phase filters of four frequency bands, octaves apart, that add up to the identity."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    both = [_convolved(taps, taps.flip(0)) / 2 for taps in (low, high)]
    bank = torch.eye(4, 1, dtype=torch.float64)
    for band in range(1, 4):
        spread = torch.stack([bank, torch.zeros_like(bank)], dim=2).flatten(1)[:, :-1]
        bank = torch.stack([_convolved(row, both[0]) for row in spread])
        middle = bank.shape[1] // 2 - len(both[1]) // 2
        bank[band, middle : middle + len(both[1])] += both[1]
    return bank.to(like)


def augment(images: Float[Tensor, "batch 3 height width"], draws: AdaDraws) -> Float[Tensor, "batch 3 height width"]:
    """Transform pictures.

    Args:
        images: in [-1, 1]; the result may leave that range.
        draws: how each changes.
    """
    inverse = _inverse_geometry(images, draws)
    if inverse is not None:
        images = _resampled(images, inverse)
    colors = _colors(images, draws)
    if colors is not None:
        flat = colors[:, :3, :3] @ images.flatten(2) + colors[:, :3, 3:]
        images = flat.unflatten(2, images.shape[2:])
    if draws.bands is not None:
        images = _amplified(images, draws.bands)
    return images if draws.hole is None else _cut(images, draws.hole)


def adapted(probability: float, sign: float, samples: int, target: float = 0.6, speed: float = 500_000) -> float:
    """Overall probability after some more samples (section 3.1): it rises while discriminators are overconfident.

    Args:
        probability: before.
        sign: mean sign of the discriminator's scores of real pictures.
        samples: pictures since the last time.
        target: sign at which it stays.
        speed: pictures in which it could go from 0 to 1.
    """
    step = math.copysign(1.0, sign - target) if sign != target else 0.0
    return max(probability + step * samples / speed, 0.0)


def _drawn(
    strengths: AdaStrengths, probability: float, size: int, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """Draws of one picture; all are drawn whatever the strengths, so that each depends on the generator alone."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=generator.device)

    gates = dict(zip((field.name for field in fields(strengths)), uniform(len(fields(strengths))), strict=True))
    after = uniform()

    def applied(name: str, value: Tensor, gate: Tensor | None = None, share: float | None = None) -> Tensor | None:
        strength = float(getattr(strengths, name))
        if strength == 0:
            return None
        happens = (gates[name] if gate is None else gate) < (strength * probability if share is None else share)
        return torch.where(happens, value, torch.zeros_like(value))

    # Turning comes before or after stretching; together as often as asked for.
    turns = 1 - math.sqrt(min(max(1 - strengths.rotate * probability, 0.0), 1.0))
    hole = torch.cat([uniform(2), torch.full((1,), 0.5, device=generator.device)])
    bands = normal(4)
    return {
        "mirrored": applied("xflip", (uniform() * 2).floor()),
        "quarters": applied("rotate90", (uniform() * 4).floor()),
        "shift": applied("xint", ((uniform(2) * 2 - 1) * 0.125 * size).round()),
        "zoom": applied("scale", normal() * 0.2),
        "turn": applied("rotate", (uniform() * 2 - 1) * math.pi, share=turns),
        "stretch": applied("aniso", normal() * 0.2),
        "turn_after": applied("rotate", (uniform() * 2 - 1) * math.pi, after, share=turns),
        "drift": applied("xfrac", normal(2) * 0.125 * size),
        "brightness": applied("brightness", normal() * 0.2),
        "contrast": applied("contrast", normal() * 0.5),
        "inverted": applied("lumaflip", (uniform() * 2).floor()),
        "hue": applied("hue", (uniform() * 2 - 1) * math.pi),
        "saturation": applied("saturation", normal()),
        "bands": applied("imgfilter", bands),
        "hole": applied("cutout", hole),
    }


def _inverse_geometry(images: Tensor, draws: AdaDraws) -> Float[Tensor, "batch 3 3"] | None:
    """From a picture's pixels (about its centre) to those it shows; the last transformation comes first."""
    steps: list[Tensor] = []
    if draws.mirrored is not None:
        steps.append(_scaling(1 - 2 * draws.mirrored, torch.ones_like(draws.mirrored)))
    if draws.quarters is not None:
        steps.append(_turning(draws.quarters * (math.pi / 2)))
    if draws.shift is not None:
        steps.append(_moving(-draws.shift))
    if draws.zoom is not None:
        steps.append(_scaling(torch.exp2(-draws.zoom), torch.exp2(-draws.zoom)))
    if draws.turn is not None:
        steps.append(_turning(draws.turn))
    if draws.stretch is not None:
        steps.append(_scaling(torch.exp2(-draws.stretch), torch.exp2(draws.stretch)))
    if draws.turn_after is not None:
        steps.append(_turning(draws.turn_after))
    if draws.drift is not None:
        steps.append(_moving(-draws.drift))
    if not steps:
        return None
    total = steps[0]
    for step in steps[1:]:
        total = total @ step
    return total.to(images)


def _resampled(
    images: Float[Tensor, "batch channels height width"], inverse: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch channels height width"]:
    """Reflect at the border, enlarge twofold with the wavelet filter, sample, and shrink with it."""
    height, width = images.shape[2:]
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2]).to(images)
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]).to(images) * middle
    seen = inverse[:, :2, :2] @ corners.T + inverse[:, :2, 2:]
    reach = seen.transpose(0, 1).flatten(1)
    needed = torch.cat([(-reach).amax(1), reach.amax(1)]) + (2 * MARGIN - middle).repeat(2)
    most = torch.tensor([width - 1, height - 1]).to(images).repeat(2)
    left, top, right, bottom = (int(value) for value in needed.clamp(min=0).minimum(most).ceil())
    padded = F.pad(images, (left, right, top, bottom), mode="reflect")
    inverse = _moving(torch.tensor([[(left - right) / 2, (top - bottom) / 2]]).to(images)) @ inverse

    taps = geometry_filter(images)
    large = _filtered(_spread(padded), taps.flip(0) * 2, (len(taps) // 2, len(taps) // 2 - 1))
    doubled = inverse.clone()
    doubled[:, :2, 2] *= 2
    half = torch.full((1, 2), 0.5).to(images)
    doubled = _moving(-half) @ doubled @ _moving(half)
    shape = (2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN))
    to_unit = _scaling(*torch.tensor([[2 / large.shape[3]], [2 / large.shape[2]]]).to(images))
    from_unit = _scaling(*torch.tensor([[shape[1] / 2], [shape[0] / 2]]).to(images))
    theta = (to_unit @ doubled @ from_unit)[:, :2]
    grid = F.affine_grid(theta, [len(images), images.shape[1], *shape], align_corners=False)
    sampled = F.grid_sample(large, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # Of the filter's reach and the margin one pixel at either end is left over.
    crop = 2 * MARGIN - (len(taps) - 1) // 2
    return _filtered(sampled[..., crop:-crop, crop:-crop], taps, (0, 0))[..., ::2, ::2]


def _colors(images: Tensor, draws: AdaDraws) -> Float[Tensor, "batch 4 4"] | None:
    """Affine map of colours."""
    luma = torch.full((3,), 1 / math.sqrt(3)).to(images)
    along = torch.outer(luma, luma)
    steps: list[Tensor] = []
    if draws.brightness is not None:
        steps.append(_affine(torch.eye(3).to(images).expand(len(images), 3, 3), draws.brightness))
    if draws.contrast is not None:
        steps.append(_affine(torch.eye(3).to(images) * torch.exp2(draws.contrast)[:, None, None]))
    if draws.inverted is not None:
        steps.append(_affine(torch.eye(3).to(images) - 2 * along * draws.inverted[:, None, None]))
    if draws.hue is not None:
        cosine, sine = draws.hue.cos()[:, None, None], draws.hue.sin()[:, None, None]
        x, y, z = luma
        zero = torch.zeros_like(x)
        across = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
        steps.append(_affine(along * (1 - cosine) + torch.eye(3).to(images) * cosine + across * sine))
    if draws.saturation is not None:
        steps.append(_affine(along + (torch.eye(3).to(images) - along) * torch.exp2(draws.saturation)[:, None, None]))
    if not steps:
        return None
    total = steps[0]
    for step in steps[1:]:
        total = step @ total
    return total


def _amplified(
    images: Float[Tensor, "batch channels height width"], bands: Float[Tensor, "batch 4"]
) -> Float[Tensor, "batch channels height width"]:
    """Amplify frequency bands, one after the other, each time keeping the power of a natural picture."""
    power = torch.tensor(EXPECTED_POWER).to(images)
    gains = torch.ones_like(bands)
    for band in range(bands.shape[1]):
        gain = torch.ones_like(bands)
        gain[:, band] = torch.exp2(bands[:, band])
        gains = gains * gain / (power * gain.square()).sum(dim=1, keepdim=True).sqrt()
    taps = gains @ filter_bank(images)
    batch, channels, height, width = images.shape
    reach = taps.shape[1] // 2
    kernels = taps[:, None].repeat(1, channels, 1).reshape(batch * channels, 1, -1)
    flat = F.pad(images.reshape(1, batch * channels, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernels[:, :, None], groups=batch * channels)
    flat = F.conv2d(flat, kernels[..., None], groups=batch * channels)
    return flat.reshape(images.shape)


def _cut(
    images: Float[Tensor, "batch channels height width"], hole: Float[Tensor, "batch 3"]
) -> Float[Tensor, "batch channels height width"]:
    across, down, side = hole[:, :, None].unbind(1)
    outside = []
    for length, centre in ((images.shape[3], across), (images.shape[2], down)):
        places = (torch.arange(length, device=images.device) + 0.5) / length
        outside.append((places - centre).abs() >= side / 2)
    return images * (outside[0][:, None, None, :] | outside[1][:, None, :, None])


def _scaling(across: Draw, down: Draw) -> Float[Tensor, "batch 3 3"]:
    return torch.diag_embed(torch.stack([across, down, torch.ones_like(across)], dim=-1))


def _turning(angle: Draw) -> Float[Tensor, "batch 3 3"]:
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -angle.sin()
    return matrix


def _moving(shift: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 3 3"]:
    matrix = torch.eye(3, device=shift.device).repeat(len(shift), 1, 1)
    matrix[:, :2, 2] = shift
    return matrix


def _affine(matrix: Float[Tensor, "batch 3 3"], added: Draw | None = None) -> Float[Tensor, "batch 4 4"]:
    total = torch.eye(4, device=matrix.device).repeat(len(matrix), 1, 1)
    total[:, :3, :3] = matrix
    if added is not None:
        total[:, :3, 3] = added[:, None]
    return total


def _spread(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels 2*height 2*width"]:
    """Zeros after every pixel."""
    batch, channels, height, width = images.shape
    return F.pad(images[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)).reshape(batch, channels, 2 * height, 2 * width)


def _filtered(images: Tensor, taps: Float[Tensor, " taps"], padding: tuple[int, int]) -> Tensor:
    """Correlate rows and columns with ``taps`` after padding with zeros before and after."""
    channels = images.shape[1]
    images = F.pad(images, (*padding, *padding))
    images = F.conv2d(images, taps.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(images, taps.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def _convolved(one: Tensor, other: Tensor) -> Tensor:
    padded = F.pad(one, (len(other) - 1, len(other) - 1))
    return F.conv1d(padded[None, None], other.flip(0)[None, None])[0, 0]
