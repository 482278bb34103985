"""Official tensor names of feature networks -> ours, by tables of modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import Conversion

_COUNTER = "num_batches_tracked"


def renamed(
    checkpoint: Mapping[str, object],
    table: Mapping[str, str],
    network: Callable[..., nn.Module],
    config: Mapping[str, Any],
    dropped: Mapping[str, str] | None = None,
) -> Conversion:
    """Convert a flat state dict whose modules are renamed and nothing else.

    Args:
        checkpoint: official name -> tensor.
        table: official module -> our module; the last part of a name (``weight``, ``running_mean``) stays.
        network: our class, which tells the names and shapes that must come out.
        config: its arguments.
        dropped: beginnings of official names that are deliberately left out -> the reason. Batch norm counters always
            are: evaluation does not use them, and released files come with and without.

    Raises:
        CheckpointError: naming tensors that are unexpected, missing, no tensors or of another shape.
    """
    reasons = {_COUNTER: "counts training batches; evaluation does not use it"}
    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in network(**config).state_dict().items()}
    tensors: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    unexpected: list[str] = []
    wrong: list[str] = []
    for name, value in checkpoint.items():
        module, _, leaf = name.rpartition(".")
        reason = reasons.get(leaf) or next((r for start, r in (dropped or {}).items() if name.startswith(start)), None)
        ours = f"{table[module]}.{leaf}" if module in table else None
        if reason is not None:
            left_out[name] = reason
        elif ours not in wanted:
            unexpected.append(name)
        elif not isinstance(value, Tensor) or tuple(value.shape) != wanted[ours]:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            wrong.append(f"{name} is {found}, not {list(wanted[ours])}")
        else:
            tensors[ours] = value.detach().float().contiguous()
    official = {ours: theirs for theirs, ours in table.items()}
    missing = [
        f"{official.get(module, module)}.{leaf}"
        for module, _, leaf in (name.rpartition(".") for name in wanted if name not in tensors)
        if not wrong
    ]
    what = network.__name__ if isinstance(network, type) else "this network"
    for label, names in (("wrong shapes", wrong), ("unexpected tensors", unexpected), ("missing tensors", missing)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"this is no checkpoint of {what}: {label}: {', '.join(names[:3])}{more}")
    return Conversion(config=dict(config), tensors={"model": tensors}, dropped=left_out)
