"""Writes files as NVIDIA's training loops do: pickles of persistent modules, with a source text that must never run."""

import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BUFFERS = ("alpha", "resample_filter", "w_avg")
SOURCE = "raise SystemExit('this source must never run')"


class Persistent:
    """An object that pickles by its class name and state."""

    def __init__(self, name: str, **state: Any) -> None:
        self.name, self.state = name, state

    def __reduce__(self):
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.name, "state": self.state}
        return rebuild, (meta,)


def module(name: str, tensors: Mapping[str, Tensor], attributes: Mapping[str, Mapping[str, Any]]) -> Persistent:
    """A module with everything below it.

    Args:
        name: its class.
        tensors: by the names of its state dict.
        attributes: of modules by their dotted path; the module's own under the empty path.
    """
    children: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] = {"training": False, "_parameters": OrderedDict(), "_buffers": OrderedDict()}
    for key, tensor in tensors.items():
        head, dot, rest = key.partition(".")
        if dot:
            children.setdefault(head, {})[rest] = tensor
        elif head in BUFFERS:
            state["_buffers"][head] = tensor
        else:
            state["_parameters"][head] = torch.nn.Parameter(tensor, requires_grad=False)
    state["_modules"] = OrderedDict()
    for child, inner in children.items():
        below = {path.partition(".")[2]: found for path, found in attributes.items() if path.split(".")[0] == child}
        state["_modules"][child] = module(child, inner, below)
    return Persistent(name, **state, **attributes.get("", {}))


def write(path: Path, networks: Mapping[str, Persistent]) -> Path:
    """Write a snapshot of some networks."""
    with _nvidia_modules(), path.open("wb") as file:
        pickle.dump({"training_set_kwargs": {"path": "x"}, **networks, "augment_pipe": None}, file, protocol=3)
    return path


@contextmanager
def _nvidia_modules() -> Iterator[None]:
    """Names under which the function that rebuilds objects is pickled."""

    def _reconstruct_persistent_obj(meta: object) -> None:
        raise AssertionError

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    sys.modules |= {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence}
    try:
        yield
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]
