"""From seeds to latent codes, frame times and the random numbers of the ray sampler."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.rendering.volume import RaySampling

CLIP_FRAMES = 16
"""Frames of the clips that PV3D was trained on; frame i shows time i / 15 (SPEC: linspace(0, 1, 16))."""

Seed = int | Sequence[int]
"""One seed, or several that a clip walks through."""

TimeProgram = Literal["once", "loop", "bounce"]


def latent_codes(seed: int, z_dim: int) -> tuple[Float[Tensor, "1 z_dim"], Float[Tensor, "1 z_dim"]]:
    """Appearance code z and motion code z_motion of one seed, both N(0, I), drawn in this order on the CPU.

    The draw is on the CPU whatever device renders, so that a seed means the same person everywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, z_dim, generator=generator), torch.randn(1, z_dim, generator=generator)


def walk(codes: Float[Tensor, "stops ..."], num_frames: int) -> Float[Tensor, "time ..."]:
    """Codes of ``num_frames`` frames that pass through ``stops`` codes at even speed, linearly between two stops."""
    stops = codes.shape[0]
    if stops == 1:
        return codes.expand(num_frames, *codes.shape[1:])
    place = torch.linspace(0, stops - 1, num_frames)
    left = place.long().clamp(max=stops - 2)
    share = (place - left).reshape(-1, *(1 for _ in codes.shape[1:])).to(codes)
    return torch.lerp(codes[left], codes[left + 1], share)


def seeds_of(seed: Seed) -> list[int]:
    """The seeds as a list.

    Raises:
        ZooError: if there are none or one is not a whole number of 0 to 2^63 - 1.
    """
    seeds = [seed] if isinstance(seed, int) else list(seed)
    if not seeds or any(not isinstance(s, int) or not 0 <= s < 2**63 for s in seeds):
        raise ZooError(f"a seed is a whole number from 0 to 2^63 - 1 (or a list of them), not {seed!r}")
    return seeds


def frame_times(num_frames: int, program: TimeProgram = "once") -> Float[Tensor, " time"]:
    """Time of each frame in [0, 1].

    Args:
        num_frames: frames of the clip.
        program: ``once`` runs through the motion one time, whatever the length (a longer clip is slower motion);
            ``loop`` starts again after 16 frames, as PV3D's orbit videos do; ``bounce`` runs forth and back.

    Raises:
        ZooError: for an unknown program.
    """
    last = CLIP_FRAMES - 1
    frame = torch.arange(num_frames, dtype=torch.float32)
    if program == "once":
        return torch.linspace(0, 1, num_frames)
    if program == "loop":
        return frame.remainder(CLIP_FRAMES) / last
    if program == "bounce":
        return 1 - ((frame.remainder(2 * last) - last).abs() / last)
    raise ZooError(f"unknown time program {program!r}: choose once, loop or bounce")


def ray_sampling(
    seed: int, frames: range, rays: int, samples: tuple[int, int], jitter: bool, device: torch.device
) -> RaySampling:
    """Random numbers of the ray sampler for ``frames``, each frame from its own generator.

    Because frame i's numbers depend on the seed and on i alone, a clip does not depend on how its frames are batched.

    Args:
        seed: seed of the clip.
        frames: frame indices.
        rays: rays of a frame.
        samples: coarse and importance samples per ray.
        jitter: whether the coarse depths are jittered (training) or evenly spaced (PV3D's generation scripts).
        device: where the numbers are used; they are drawn on the CPU.
    """
    coarse, fine = samples
    jitters, uniforms = [], []
    for frame in frames:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + frame) % 2**63)
        uniforms.append(torch.rand(rays, fine, generator=generator))
        if jitter:
            jitters.append(torch.rand(rays, coarse, generator=generator))
    return RaySampling(
        jitter=torch.stack(jitters).to(device) if jitter else None,
        uniforms=torch.stack(uniforms).to(device),
    )
