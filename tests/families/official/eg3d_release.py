"""Networks as the authors of GenHead and Portrait4D save them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "parity"))  # the writer of pickles lives beside its reader
import persistence_pickles
from genhead_cases import official_buffers

from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.hub.conversion import Rename, official_name
from portraitzoo.hub.eg3d_tensors import COLOR, DENSITY, OUTPUT
from portraitzoo.layers.resampling import binomial_kernel


def released(
    network: nn.Module, table: Sequence[Rename], kind: str, head_prefix: str, settings: Mapping[str, object]
) -> persistence_pickles.Persistent:
    """A generator with a ``head`` and a ``super_resolution``, with the tensors that ours leaves out put back.

    Args:
        network: ours.
        table: official names and ours.
        kind: the class that the file names.
        head_prefix: of the head's tables.
        settings: its rendering settings.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("head.")}
    tensors: dict[str, Tensor] = {str(official_name(name, table)): tensor for name, tensor in own.items()}
    for part in ("weight", "bias"):
        joined = tensors.pop(OUTPUT + part)
        tensors[DENSITY + part], tensors[COLOR + part] = joined[:1], joined[1:]
    config = network.config
    for block in range(len(config.super_resolution_channels)):
        side = config.super_resolution_input << (block + 1)
        for layer in ("conv0", "conv1"):
            tensors[f"superresolution.block{block}.{layer}.noise_const"] = torch.zeros(side, side)
            tensors[f"superresolution.block{block}.{layer}.noise_strength"] = torch.zeros(())
    tensors["superresolution.block0.resample_filter"] = binomial_kernel(torch.zeros(()))
    head = network.head
    assert isinstance(head, FlameHead)
    tensors |= {head_prefix + name: tensor for name, tensor in official_buffers(head).items()}
    attributes = {"rendering_kwargs": settings, "neural_rendering_resolution": config.render_resolution}
    return persistence_pickles.module(kind, tensors, {"": attributes})
