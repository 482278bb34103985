"""The families that a verb serves, found through the index: a new family joins by having entries there."""

import argparse
import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from portraitzoo.cli.options import add_options
from portraitzoo.errors import ZooError
from portraitzoo.hub.index import list_models


def model_class(path: str) -> type:
    """Class at a dotted path of the index."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def add_family_options(
    parser: argparse.ArgumentParser,
    verb: str,
    *,
    skip: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
) -> None:
    """Add the options of method ``verb`` of every family that has it, one help section per family."""
    makers = {entry.cls: entry.family for entry in list_models() if entry.cls and entry.task != "features"}
    for cls_path, family in makers.items():
        method = getattr(model_class(cls_path), verb, None)
        if method is not None:
            group = parser.add_argument_group(f"options of {family}")
            add_options(group, method, skip=skip, rename=rename, required=False)


def options_for(model: object, verb: str, namespace: argparse.Namespace, own: Collection[str]) -> dict[str, Any]:
    """Keyword arguments that the command line gave for ``model``'s method ``verb``.

    Args:
        model: loaded model.
        verb: name of its method.
        namespace: what was parsed.
        own: names in the namespace that the verb itself uses up.

    Raises:
        ZooError: if the model has no such verb, an option belongs to another family, or one that it needs is missing.
    """
    method = getattr(model, verb, None)
    if method is None:
        raise ZooError(f"{type(model).__name__} cannot {verb}: `zoo list` tells which models can")
    takes = inspect.signature(method).parameters
    chosen = {name: value for name, value in vars(namespace).items() if name not in own}
    for name in chosen:
        if name not in takes:
            raise ZooError(f"{type(model).__name__} has no option --{name.replace('_', '-')}")
    for name, parameter in takes.items():
        gathers = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if parameter.default is inspect.Parameter.empty and not gathers and name not in {*chosen, *own}:
            raise ZooError(f"{type(model).__name__} needs the option --{name.replace('_', '-')} to {verb}")
    return chosen
