"""The record of a bulk run: what drew the files of a folder, so that a folder never mixes two answers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from portraitzoo.errors import ZooError
from portraitzoo.files import replacing
from portraitzoo.rendering.cameras import Camera

RUN_FILE = "sampling.json"


def claim(folder: Path, record: dict[str, object], occupied: bool) -> None:
    """Note in a folder what fills it, or see that it is filled by the same.

    Args:
        folder: gets ``sampling.json``; made if need be. Several processes may claim it at once.
        record: what decides the files, as JSON.
        occupied: whether there are files already.

    Raises:
        ZooError: if something else does, or files of unknown origin stand in the way.
    """
    path = folder / RUN_FILE
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        if occupied:
            raise ZooError(
                f"{folder} holds clips without a {RUN_FILE} that says where they come from: choose another folder"
            ) from None
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")
        return
    except (OSError, ValueError) as error:
        raise ZooError(f"{path} cannot be read: choose another folder, or remove it with its clips") from error
    difference = _difference(found, json.loads(json.dumps(record)))
    if difference:
        raise ZooError(f"{folder} holds clips of another run ({difference}): choose another folder")


def weights_checksum(model: nn.Module) -> str:
    """BLAKE2 digest of the names, types, shapes and values of a model's tensors, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        state.update(f"{name} {_digest(tensor)}\n".encode())
    return state.hexdigest()


def identity(model: nn.Module) -> dict[str, object]:
    """Class, configuration and weights of a model, as JSON."""
    config = getattr(model, "config", None)
    plain = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else None
    kind = type(model)
    return {
        "model": f"{kind.__module__}.{kind.__qualname__}",
        "config": described(plain),
        "weights": weights_checksum(model),
    }


def described(value: object) -> object:
    """A value as JSON that is equal for equal values; tensors and cameras by their digest.

    Raises:
        ZooError: for a type that has no such form.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            return _digest(value)
        case Camera():
            return _digest(value.label())
        case Path():
            return str(value)
        case Mapping():
            return {str(key): described(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted(map(described, value), key=repr)
        case Sequence():
            return [described(item) for item in value]
    raise ZooError(f"bulk sampling cannot record an option of type {type(value).__name__}: give plain values")


def _difference(found: object, wanted: object, name: str = "run") -> str:
    """First thing in which two records differ, in words; empty if they agree."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            difference = _difference(found.get(key), wanted.get(key), key)
            if difference:
                return difference
        return ""
    return "" if found == wanted else f"{name}: {json.dumps(found)} there, {json.dumps(wanted)} now"


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.blake2b(content.data, digest_size=16).hexdigest()}"
