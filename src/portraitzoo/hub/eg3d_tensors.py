"""What official checkpoints of the EG3D lineage (GenHead, Portrait4D) share: networks in one pickle, tensor names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import BINOMIAL_FILTERS, Drop, Rename
from portraitzoo.hub.modules import tensors_of_module
from portraitzoo.hub.records import Record

DENSITY, COLOR, OUTPUT = "decoder.out_sigma.", "decoder.out_rgb.", "decoder.out."

RENDERER_TABLE = (
    Rename("superresolution.block{block}.{rest}", "super_resolution.blocks.{block}.{rest}"),
    Rename("decoder.net.0.{rest}", "decoder.hidden.{rest}"),
    Rename(OUTPUT + "{rest}", "decoder.output.{rest}"),
)
"""Decoder (after :func:`joined_decoder`) and super-resolution."""

DISCRIMINATOR_TABLE = (
    Rename("mapping.fc{layer}.{rest}", "mapping.layers.{layer}.{rest}"),
    Rename("mapping.{rest}", "mapping.{rest}"),
    Rename("b4.{rest}", "epilogue.{rest}"),
    Rename("{block}.{rest}", "blocks.{block}.{rest}"),
)

ALWAYS_DROPPED = (
    BINOMIAL_FILTERS,
    Drop(r"dataset_label_std", "a number that only training with noisy labels needs, which was not done"),
)
DROPS = (
    *ALWAYS_DROPPED,
    Drop(r"superresolution\..+\.noise_(const|strength)", "the super-resolution adds no noise (noise mode none, EG3D)"),
)
"""What a network without noise in its super-resolution has no use for."""


def networks_of(
    checkpoint: Mapping[str, Any], names: Sequence[str]
) -> dict[str, tuple[dict[str, Tensor], Mapping[str, Any]]]:
    """Tensors and attributes of each network that a checkpoint holds.

    Args:
        checkpoint: what a pickle holds: modules (or their state dicts) by name; or the tensors of the first of
            ``names`` alone.
        names: of the networks.

    Raises:
        CheckpointError: if the first is not there.
    """
    if checkpoint and all(isinstance(value, Tensor) for value in checkpoint.values()):
        return {names[0]: (dict(checkpoint), {})}
    found: dict[str, tuple[dict[str, Tensor], Mapping[str, Any]]] = {}
    for name in names:
        network = checkpoint.get(name)
        if isinstance(network, Record):
            found[name] = tensors_of_module(network), network.attributes
        elif isinstance(network, Mapping):
            found[name] = dict(network), {}
    if names[0] not in found:
        raise CheckpointError(f"the checkpoint has no network {names[0]}")
    return found


def joined_decoder(official: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The tensors with the decoder's two outputs, density and colour, as the one layer that they are with us.

    Args:
        official: tensors of a network.
        prefix: put before names in messages.

    Raises:
        CheckpointError: naming a tensor that is missing.
    """
    joined = dict(official)
    for part in ("weight", "bias"):
        for name in (DENSITY + part, COLOR + part):
            if name not in official:
                raise CheckpointError(f"the checkpoint lacks the tensor {prefix}{name}")
        joined[OUTPUT + part] = torch.cat([joined.pop(DENSITY + part), joined.pop(COLOR + part)])
    return joined
