"""Outputs of small networks, kept beside their tests, for checkouts without the reference folder.

They were recorded when the networks agreed with the reference. To record anew (after tests/parity passes):
``PORTRAITZOO_RECORD=1 pytest tests/golden``.
"""

import os
import re
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Of an array's largest magnitude."""


def numbers(name: str, *shape: int) -> Tensor:
    """Normal numbers that depend on the name and the shape alone."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def fill(network: nn.Module, prefix: str) -> nn.Module:
    """StyleGAN2 weights of about the size of fresh ones, none of which is without effect."""
    for name, tensor in network.state_dict().items():
        value = numbers(f"{prefix}.{name}", *tensor.shape)
        if name.endswith("noise_strength"):
            value *= 0.2
        elif name.endswith("bias"):
            value *= 0.05
            value += 1 if re.search(r"(conv\d?|torgb|to_raw)\.affine", name) else 0  # styles are around 1
        elif "mapping.layers" in name:
            value *= 100
        tensor.copy_(value)
    return network.eval()


@torch.no_grad()
def fill_measuring(network: nn.Module, prefix: str) -> nn.Module:
    """Weights of networks with fixed batch norms that keep activations in range, none of which is without effect."""
    for name, tensor in network.state_dict().items():
        value = numbers(f"{prefix}.{name}", *tensor.shape)
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            value = 1 + 0.2 * value.abs()
        else:
            value *= 0.1 if tensor.ndim == 1 else 1.2 / tensor[0].numel() ** 0.5
        tensor.copy_(value)
    return network.eval()


def compare(
    record: Path,
    found: Mapping[str, Tensor],
    *,
    translucent: Collection[str] = ("opacity",),
    limits: Mapping[str, float] | None = None,
    share: float = 1.0,
    worst: float | None = None,
) -> None:
    """Hold outputs against those recorded, or record them.

    Args:
        record: the ``.npz``.
        found: outputs by name.
        translucent: ends of the names of outputs whose mean must lie well between 0 and 1.
        limits: tolerance where the name contains this, instead of :data:`TOLERANCE`.
        share: of the values of an output that must be within its tolerance.
        worst: tolerance of the others.
    """
    recorded = dict(np.load(record)) if record.exists() else {}
    if os.environ.get("PORTRAITZOO_RECORD"):
        np.savez_compressed(record, **recorded | {name: value.numpy() for name, value in found.items()})
        pytest.skip(f"recorded {record.name}")
    for name, value in found.items():
        if name.endswith(tuple(translucent)):
            assert 0.05 < float(value.mean()) < 0.95, f"{name}: an empty or opaque volume would hide errors"
        expected = torch.from_numpy(recorded[name])
        assert value.shape == expected.shape, name
        errors = (value - expected).abs() / expected.abs().max()
        limit = next((limit for part, limit in (limits or {}).items() if part in name), TOLERANCE)
        assert float((errors <= limit).float().mean()) >= share, f"{name}: relative error {float(errors.max()):.1e}"
        assert worst is None or float(errors.max()) <= worst, f"{name}: relative error {float(errors.max()):.1e}"
