"""Which two frames of a clip a video discriminator is shown (DIGAN; Yu et al., ICLR 2022, section 3.2)."""

import torch
from jaxtyping import Float
from torch import Tensor


def frame_pair(early: float, late: float, window: int = 16) -> tuple[int, int]:
    """Frames of a window shown as a pair: the sorted whole parts of ``window * early`` and ``window * late``.

    Args:
        early: draw from Beta(2, 1) in [0, 1].
        late: draw from Beta(1, 2) in [0, 1].
        window: frames of the window.
    """
    first, second = (min(int(window * draw), window - 1) for draw in (early, late))
    return min(first, second), max(first, second)


def beta_times(early: Float[Tensor, " batch"], late: Float[Tensor, " batch"]) -> Float[Tensor, "batch 2"]:
    """Times of generated pairs: ascending, one from Beta(2, 1), the other from Beta(1, 2), of uniform numbers.

    Both distributions have closed inverses: u -> sqrt(u) and u -> 1 - sqrt(1 - u).
    """
    return torch.stack([early.sqrt(), 1 - (1 - late).sqrt()], dim=1).sort(dim=1).values
