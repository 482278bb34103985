"""From seeds to latent codes and frame times, as the original video command has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.methods.threedvidgen.network import ThreeDVidGenConfig

VIDEO_TEMPERATURE = 0.65
"""Scale of the background codes in the original video command; in training and in evaluation it is 1."""

LARGEST_SEED = 2**32 - 1
"""NumPy's generator, which draws the appearance, takes no larger one."""


@dataclass(frozen=True)
class Codes:
    """The latent codes of one video.

    Attributes:
        appearance: z, N(0, I).
        motion: N(0, I).
        background: N(0, I) times the temperature.
    """

    appearance: Float[Tensor, "1 z_dim"]
    motion: Float[Tensor, "1 motion_dim"]
    background: Float[Tensor, "1 background_dim"]


def latent_codes(
    seed: int, motion_seed: int | None, config: ThreeDVidGenConfig, temperature: float = VIDEO_TEMPERATURE
) -> Codes:
    """Codes of the original video command for a seed: the paper's seeds give the paper's people.

    The draws are on the CPU whatever device renders, and touch no global generator: the appearance is NumPy's, the
    background the second draw of a PyTorch generator, the motion the first draw of one with the motion seed.

    Args:
        seed: of appearance and background.
        motion_seed: of the motion; None takes ``seed``.
        config: widths of the codes.
        temperature: scale of the background code.

    Raises:
        ZooError: for a seed that is no whole number of 0 to 2^32 - 1.
    """
    for number in (seed, seed if motion_seed is None else motion_seed):
        if not isinstance(number, int) or not 0 <= number <= LARGEST_SEED:
            raise ZooError(f"a seed is a whole number from 0 to 2^32 - 1, not {number!r}")
    appearance = np.random.RandomState(seed).randn(1, config.z_dim)
    generator = torch.Generator().manual_seed(seed)
    torch.randn(1, config.background_dim, generator=generator)  # drawn and thrown away upstream
    background = torch.randn(1, config.background_dim, generator=generator) * temperature
    generator = torch.Generator().manual_seed(seed if motion_seed is None else motion_seed)
    motion = torch.randn(1, config.motion_dim, generator=generator)
    return Codes(torch.from_numpy(appearance).float(), motion, background)


def frame_times(num_frames: int, time_steps: int | None = None) -> Float[Tensor, " time"]:
    """Times of frames, of which ``time_steps`` (None: all) run evenly from 0 to 1.

    Raises:
        ZooError: if there are fewer moments than frames.
    """
    steps = num_frames if time_steps is None else time_steps
    if steps < num_frames:
        raise ZooError(f"{num_frames} frames need at least as many time steps, not {steps}")
    return torch.linspace(0, 1, steps)[:num_frames]
