"""The families that a verb serves, found through the index: a new family joins by having entries there."""

import argparse
import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any

from portraitzoo.cli.options import add_options
from portraitzoo.errors import ZooError
from portraitzoo.hub.index import list_models

VERBS = ("sample", "animate", "mesh")
"""What users do with models."""


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


def check_verb(name: str, verb: str) -> None:
    """Find out whether an entry's model has method ``verb``, before its weights are downloaded.

    Args:
        name: of an entry; folders and checkpoints tell when they are loaded.
        verb: name of the method.

    Raises:
        ZooError: if it has not; the message names what it has instead.
    """
    entry = next((entry for entry in list_models() if entry.name == name), None)
    if entry is not None and entry.cls and not hasattr(cls := model_class(entry.cls), verb):
        instead = [other for other in VERBS if hasattr(cls, other)]
        hint = f"use zoo {' or zoo '.join(instead)}" if instead else "`zoo list` tells which models can"
        raise ZooError(f"{name} cannot {verb}: {hint}")


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
