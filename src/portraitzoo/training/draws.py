"""Random numbers that depend on what they are for, not on who draws them or when.

Every draw belongs to one training sample, named by its position in the endless stream of samples, and to one purpose.
Its generator is seeded by exactly these numbers. Hence a run that was stopped and resumed, or one that is split over
more processes, draws the same numbers as an undisturbed single process, and no generator state needs to be saved.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """A 64-bit seed that depends on every number of ``key`` (each at least 0) and on their order."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """PyTorch generator on ``device`` seeded by ``key``; CPU and CUDA streams of one key differ."""
    return torch.Generator(device).manual_seed(derived_seed(*key))


def generators(key: Sequence[int], positions: Sequence[int], device: torch.device | str) -> list[torch.Generator]:
    """One generator for each sample of a batch, from ``key`` and the sample's position in the stream."""
    return [generator(*key, position, device=device) for position in positions]


@contextmanager
def seeded_globals(device: torch.device, *key: int) -> Iterator[None]:
    """Seed PyTorch's global generators of the CPU and ``device`` by ``key``, and give them back afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derived_seed(*key))
        yield


def numpy_generator(*key: int) -> np.random.Generator:
    """NumPy generator seeded by ``key``."""
    return np.random.default_rng(np.random.SeedSequence(key))
