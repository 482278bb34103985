"""Command line options from a function's own signature and docstring, so that the two cannot drift apart."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import docstring_parser


def parser(verb: str, description: str) -> argparse.ArgumentParser:
    """Empty parser of ``zoo VERB``; options cannot be shortened, so that a new one never changes an old script."""
    return argparse.ArgumentParser(prog=f"zoo {verb}", description=description, allow_abbrev=False)


def add_options(
    target: argparse.ArgumentParser | argparse._ArgumentGroup,
    function: Callable[..., Any],
    *,
    skip: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
) -> None:
    """Add one option for every parameter of ``function``: ``num_frames`` becomes ``--num-frames``.

    An option that is not given leaves no trace in the namespace, so that the default stays in one place, the
    function. Sequences are written with commas (``--maps depth,normals``), booleans as ``--flag`` and ``--no-flag``.

    Args:
        target: parser or group to add to. Options that it has already are left alone.
        function: function or method with type hints and a Google-style docstring.
        skip: parameters that get no option.
        rename: parameter -> name of the option without dashes in front.
    """
    documented = docstring_parser.parse(inspect.getdoc(function) or "").params
    help_of = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documented}
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        flag = "--" + (rename or {}).get(name, name).replace("_", "-")
        if name in ("self", *skip) or flag in target._option_string_actions:
            continue
        help_text = help_of.get(name, "").replace("``", "").replace("%", "%%")
        if parameter.default not in (inspect.Parameter.empty, None):
            help_text += f" (default: {_spelled(parameter.default)})"
        target.add_argument(
            flag,
            dest=name,
            default=argparse.SUPPRESS,
            required=parameter.default is inspect.Parameter.empty,
            help=help_text.strip(),
            **_kind(hints.get(name, str)),
        )


def given(namespace: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments of ``function`` that the command line gave."""
    return {name: value for name, value in vars(namespace).items() if name in inspect.signature(function).parameters}


def _kind(hint: Any) -> dict[str, Any]:
    """Keywords of ``add_argument`` for a type hint, without the members of a union that text cannot express."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for member in members if member is not type(None) and (kind := _kind(member))]
        return kinds[0] if len(kinds) == 1 else {"type": _first_of(kinds), "metavar": "|".join(map(_shown, kinds))}
    if origin is typing.Literal:
        return {"choices": members}
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable):
        item = _kind(members[0]).get("type", str) if members else str
        return {"type": _comma_separated(item), "metavar": "A,B,..."}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in (int, float, str, Path):
        return {"type": hint, "metavar": {int: "N", float: "X", str: "TEXT", Path: "PATH"}[hint]}
    return {}


def _shown(kind: dict[str, Any]) -> str:
    return kind.get("metavar") or "|".join(kind["choices"])


def _first_of(kinds: list[dict[str, Any]]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        for kind in kinds:
            if text in kind.get("choices", ()):
                return text
            if "type" in kind:
                with contextlib.suppress(ValueError):
                    return kind["type"](text)
        raise ValueError(text)

    parse.__name__ = "value"
    return parse


def _comma_separated(item: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = "list"
    return parse


def _spelled(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
