"""Files laid out as Portrait4D's are: a pickle of persistent modules, whose tensors a manifest describes."""

import pickle
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import reference
from torch import Tensor, nn


class Network(nn.Module):
    """Module that pickles as NVIDIA's decorated classes do: by a meta dict that holds source text and state."""

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit('this source must never run')",
            "class_name": "TriPlaneReconstructorNeutralize",
            "state": self.__dict__.copy(),
        }
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


def network_of(case: reference.Case, rendering_kwargs: Mapping[str, object] | None = None) -> Network:
    """A module tree with the case's tensors."""
    kinds = {row["name"]: row["kind"] for row in case.manifest["tensors"]}
    root = Network()
    for name, tensor in case.state_dict().items():
        *path, last = name.split(".")
        module: nn.Module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Network())
            module = module._modules[part]
        if kinds[name] == "param":
            module.register_parameter(last, nn.Parameter(tensor))
        else:
            module.register_buffer(last, tensor)
    if rendering_kwargs is not None:
        root.rendering_kwargs = dict(rendering_kwargs)
    return root


def write_pickle(path: Path, networks: Mapping[str, Network]) -> Path:
    """Write the dict that training leaves behind."""
    content = {"training_set_kwargs": {"class_name": "x"}, **networks, "D_patch": None, "augment_pipe": None}
    with _persistence():
        path.write_bytes(pickle.dumps(content))
    return path


@contextmanager
def _persistence() -> Iterator[None]:
    """The module that pickles name, while they are written."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: dict) -> Tensor:
        raise AssertionError("nothing in a checkpoint may run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    sys.modules["torch_utils"], sys.modules["torch_utils.persistence"] = types.ModuleType("torch_utils"), module
    try:
        yield
    finally:
        del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]
