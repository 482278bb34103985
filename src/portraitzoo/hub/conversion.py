"""From an official checkpoint's tensors to ours: tables of names, and the check that nothing was overlooked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.layers.resampling import binomial_kernel


@dataclass(frozen=True)
class Conversion:
    """Converted weights of one checkpoint.

    Attributes:
        config: arguments of the family's configuration.
        tensors: for each file to be written (``model``, ``training``), its tensors by our names.
        dropped: official name of each tensor that was left out, and why.
    """

    config: dict[str, object]
    tensors: dict[str, dict[str, Tensor]]
    dropped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rename:
    """A row of a table of names; it can be read both ways.

    Attributes:
        official: official name. A placeholder such as ``{block}`` stands for anything without a dot, ``{rest}`` for
            anything.
        ours: our name, with the same placeholders.
    """

    official: str
    ours: str


@dataclass(frozen=True)
class Drop:
    """Official names that are left out.

    Attributes:
        pattern: regular expression that matches the whole name.
        reason: why they are not needed.
        expected: what the tensor must be, where the reason rests on its value; anything else is an error.
    """

    pattern: str
    reason: str
    expected: Callable[[Tensor], bool] | None = None


def _is_binomial(tensor: Tensor) -> bool:
    return tensor.shape == (4, 4) and bool(torch.allclose(tensor.float(), binomial_kernel(tensor.float())))


BINOMIAL_FILTERS = Drop(r"(.+\.)?resample_filter", "the constant binomial filter", _is_binomial)
"""Buffers that StyleGAN2's layers carry, whether they use them or not."""


def our_name(official: str, table: Sequence[Rename]) -> str | None:
    """Our name of an official tensor, by the first row that matches; None if none does."""
    return _translate(official, [(row.official, row.ours) for row in table])


def official_name(ours: str, table: Sequence[Rename]) -> str | None:
    """Official name of our tensor, by the first row that matches; None if none does."""
    return _translate(ours, [(row.ours, row.official) for row in table])


def convert_tensors(
    tensors: Mapping[str, Tensor],
    renames: Sequence[Rename],
    drops: Sequence[Drop],
    expected: Mapping[str, torch.Size],
    prefix: str = "",
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Rename or drop every tensor, and require exactly the expected ones.

    Args:
        tensors: by official names.
        renames: table of names.
        drops: what to leave out; looked at first.
        expected: shapes by our names.
        prefix: put before official names in messages and reasons.

    Returns:
        Tensors by our names, and the reason for each official name left out.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected, of another shape, or dropped although its value
            is not what the reason for dropping rests on.
    """
    ours: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for official, tensor in tensors.items():
        drop = next((row for row in drops if re.fullmatch(row.pattern, official)), None)
        if drop is not None:
            if drop.expected is not None and not drop.expected(tensor):
                raise CheckpointError(f"the tensor {prefix}{official} should be {drop.reason}, but is something else")
            dropped[prefix + official] = drop.reason
            continue
        name = our_name(official, renames)
        if name is None or name not in expected:
            raise CheckpointError(f"the checkpoint has an unexpected tensor, {prefix}{official}")
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"the tensor {prefix}{official} has shape {list(tensor.shape)}, not {list(expected[name])}"
            )
        if name in ours:
            raise CheckpointError(f"the checkpoint has {prefix}{official} twice, under different names")
        ours[name] = tensor
    for name in expected:
        if name not in ours:
            raise CheckpointError(f"the checkpoint lacks the tensor {prefix}{official_name(name, renames) or name}")
    return ours, dropped


def _translate(name: str, table: Sequence[tuple[str, str]]) -> str | None:
    for before, after in table:
        pattern = re.sub(r"\\\{(\w+)\\\}", _placeholder, re.escape(before))
        match = re.fullmatch(pattern, name)
        if match:
            return after.format(**match.groupdict())
    return None


def _placeholder(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>{'.+' if match[1] == 'rest' else '[^.]+'})"
