"""Getting weights and settings out of the records that whole-module files become."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.records import Record, shown

_DEPTH = 100
_MODULES = 100_000
_SCRIPTED = "__torch__"


def tensors_of_module(record: Any) -> dict[str, Tensor]:
    """The state dict of a module that a file holds as a record: names and order as ``module.state_dict()`` gives them.

    Works on plain ``torch.nn`` modules, on NVIDIA's persistent modules and on TorchScript modules: own parameters, own
    persistent buffers, then the children in their order, names joined by dots. Tensors that are ordinary attributes are
    no part of it (in TorchScript, which does not tell them apart, they are).

    Args:
        record: what :func:`~portraitzoo.hub.checkpoints.read_checkpoint` gave for the module.

    Raises:
        CheckpointError: if it is no module, or its modules contain each other.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in _walk(record, "", 0, iter(range(_MODULES))):
        if name in tensors:
            raise CheckpointError(f"the module holds the tensor {shown(name)} twice")
        tensors[name] = tensor
    return tensors


def _walk(record: Any, prefix: str, depth: int, budget: Iterator[int]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(record, Record):
        raise CheckpointError(
            f"{shown(prefix[:-1]) if prefix else 'the file'} holds {shown(record)} instead of a module"
        )
    # Shared children are listed under each of their names; without a bound, a few could have astronomically many.
    if depth > _DEPTH or next(budget, None) is None:
        raise CheckpointError("its modules are nested too deeply, or contain each other")
    state = record.attributes
    if record.module.split(".")[0] == _SCRIPTED:
        yield from _walk_scripted(state, prefix, depth, budget)
        return
    parameters, buffers, children = (_named(state, part) for part in ("_parameters", "_buffers", "_modules"))
    if "_parameters" not in state and "_modules" not in state:
        raise CheckpointError(f"{shown(record.path)} is no module: it has neither parameters nor children")
    transient = state.get("_non_persistent_buffers_set") or ()
    for name, tensor in parameters + [item for item in buffers if item[0] not in transient]:
        if isinstance(tensor, Tensor):
            yield prefix + name, tensor
        elif tensor is not None:
            raise CheckpointError(f"{shown(prefix + name)} is {shown(tensor)} instead of a tensor")
    for name, child in children:
        if child is not None:
            yield from _walk(child, f"{prefix}{name}.", depth + 1, budget)


def _walk_scripted(
    state: dict[str, Any], prefix: str, depth: int, budget: Iterator[int]
) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
    for name, value in state.items():
        if isinstance(value, Record):
            yield from _walk(value, f"{prefix}{name}.", depth + 1, budget)


def _named(state: dict[str, Any], part: str) -> list[tuple[str, Any]]:
    values = state.get(part) or {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise CheckpointError(f"the module's {part} is not a dict of names")
    return list(values.items())


def resolve_config(value: Any) -> Any:
    """Plain dicts, lists and values for configuration objects (OmegaConf nodes) that a file holds as records.

    Interpolations such as ``${model.dim}`` are resolved against the root that the node's parents lead to; one whose
    target the file does not hold stays the string that it is. Plain containers are copied, other values kept.

    Raises:
        CheckpointError: if the configuration contains itself.
    """
    return _Resolver().resolve(value, frozenset())


class _Resolver:
    """Resolves each object once: shared parts stay shared, however often the file refers to them."""

    def __init__(self) -> None:
        # The object itself is kept beside its result, so that its identity is not given to another one.
        self._done: dict[int, tuple[Any, Any]] = {}

    def resolve(self, value: Any, above: frozenset[int]) -> Any:
        if not isinstance(value, dict | list | tuple | Record):
            return value
        if id(value) in above or len(above) > _DEPTH:
            raise CheckpointError("the configuration in the file contains itself")
        if id(value) not in self._done:
            self._done[id(value)] = value, self._resolved(value, above | {id(value)})
        return self._done[id(value)][1]

    def _resolved(self, value: Any, above: frozenset[int]) -> Any:
        if isinstance(value, dict):
            return {key: self.resolve(item, above) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.resolve(item, above) for item in value)
        if not value.module.startswith("omegaconf"):
            return value
        state = value.attributes
        content = state["_content"] if "_content" in state else state.get("_val")
        if isinstance(content, str) and content.startswith("${") and content.endswith("}"):
            target = _interpolated(value, content)
            return content if target is None else self.resolve(target, above)
        return self.resolve(content, above)


def _interpolated(node: Record, text: str) -> Any:
    root: Any = node
    for _ in range(_DEPTH):
        parent = root.attributes.get("_parent")
        if not isinstance(parent, Record):
            break
        root = parent
    target: Any = root
    for step in text[2:-1].split("."):
        content = target.attributes.get("_content") if isinstance(target, Record) else None
        if not isinstance(content, dict) or step not in content:
            return None
        target = content[step]
    return target
