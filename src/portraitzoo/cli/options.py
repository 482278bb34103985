"""Command line options from a function's own signature and docstring, so that the two cannot drift apart."""

from __future__ import annotations

import argparse
import collections.abc
import contextlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import docstring_parser

KINDS = "portraitzoo_kinds"
"""Attribute of options made here: what each function that knows the option lets it be."""


def parser(verb: str, description: str) -> argparse.ArgumentParser:
    """Empty parser of ``zoo VERB``; options cannot be shortened, so that a new one never changes an old script."""
    return argparse.ArgumentParser(prog=f"zoo {verb}", description=description, allow_abbrev=False)


def add_options(
    target: argparse.ArgumentParser | argparse._ArgumentGroup,
    function: Callable[..., Any],
    *,
    skip: Collection[str] = (),
    rename: Mapping[str, str] | None = None,
    defaults: bool = True,
    required: bool = True,
) -> set[str]:
    """Add one option for every parameter of ``function``: ``num_frames`` becomes ``--num-frames``.

    An option that is not given leaves no trace in the namespace, so that the default stays in one place, the
    function. Sequences are written with commas (``--maps depth,normals``), booleans as ``--flag`` and ``--no-flag``.

    Args:
        target: parser or group to add to. An option that it has already from another function also takes what this
            function's parameter of that name does (one function's seed, another's list of seeds); others are left
            alone.
        function: function or method with type hints and a Google-style docstring.
        skip: parameters that get no option.
        rename: parameter -> name of the option without dashes in front.
        defaults: whether the help tells them; not where something else decides what an option is by default.
        required: whether parameters without a default must be given; not where several functions share a parser.

    Returns:
        The parameters that got an option.
    """
    added = set()
    documented = docstring_parser.parse(inspect.getdoc(function) or "").params
    help_of = {entry.arg_name: " ".join((entry.description or "").split()) for entry in documented}
    hints = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        flag = "--" + (rename or {}).get(name, name).replace("_", "-")
        collects = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if name in ("self", *skip) or collects:
            continue
        kind = _kind(hints.get(name, str))
        if flag in target._option_string_actions:
            _widen(target._option_string_actions[flag], kind)
            continue
        help_text = help_of.get(name, "").replace("``", "").replace("%", "%%")
        if defaults and parameter.default not in (inspect.Parameter.empty, None, ()):
            help_text += f" (default: {_spelled(parameter.default)})"
        action = target.add_argument(
            flag,
            dest=name,
            default=argparse.SUPPRESS,
            required=required and parameter.default is inspect.Parameter.empty,
            help=help_text.strip(),
            **kind,
        )
        setattr(action, KINDS, [kind])
        added.add(name)
    return added


def given(namespace: argparse.Namespace, names: Collection[str]) -> dict[str, Any]:
    """Those of the options called ``names`` that the command line gave."""
    return {name: value for name, value in vars(namespace).items() if name in names}


def whole_numbers(text: str) -> list[int]:
    """Whole numbers written as ``0-999``, ``3,5,7`` or a mixture.

    Raises:
        ValueError: if it is something else.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers += range(int(first), int(last) + 1) if dash else [int(first)]
    return numbers


def json_object(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: if it is something else.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(text)
    return content


def _kind(hint: Any) -> dict[str, Any]:
    """Keywords of ``add_argument`` for a type hint, without the members of a union that text cannot express."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for member in members if member is not type(None) and (kind := _kind(member))]
        paths = [kind for kind in kinds if kind.get("type") is Path]
        kinds = paths or kinds
        return kinds[0] if len(kinds) == 1 else {"type": _first_of(kinds), "metavar": "|".join(map(_shown, kinds))}
    if origin is typing.Literal:
        kind = {"type": int} if all(type(member) is int for member in members) else {}
        return {"choices": members, **kind}
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable):
        item = _kind(members[0]).get("type", str) if members else str
        return {"type": _comma_separated(item), "metavar": "A,B,..."}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if hint in (int, float, str, Path):
        return {"type": hint, "metavar": {int: "N", float: "X", str: "TEXT", Path: "PATH"}[hint]}
    return {}


def _widen(option: argparse.Action, kind: dict[str, Any]) -> None:
    """Let an option of another function also be ``kind``."""
    kinds = getattr(option, KINDS, None)
    told = kind.get("metavar"), kind.get("choices")
    if not kinds or not kind or "action" in kind or told in [(k.get("metavar"), k.get("choices")) for k in kinds]:
        return
    kinds.append(kind)
    option.type, option.choices = _first_of(kinds), None
    option.metavar = "|".join(dict.fromkeys("|".join(map(_shown, kinds)).split("|")))


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
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
