"""What a foreign file may become in memory: plain containers, tensors, and the inert records defined here.

A pickle names functions and classes and says which to call with what. Nothing in this package follows that: a name
becomes a :class:`Global`, a call a :class:`Record` of the call. Neither can be called, imports anything or runs code.
"""

from dataclasses import dataclass, field
from typing import Any

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a function or class in some module, as a file states it."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Dotted path, for messages."""
        return f"{self.module}.{self.name}"

    def __repr__(self) -> str:
        return f"Global({shown(self.path)})"


@dataclass(eq=False, slots=True)
class Record:
    """An object that a file describes: which class or function (``module``, ``name``), with which arguments.

    ``state`` is what the file would have handed to ``__setstate__`` (usually the instance's ``__dict__``), ``items``
    and ``elements`` what it would have stored in a dict-like or appended to a list-like object. For a call of something
    that is itself a record, ``name`` ends in ``()`` and the first argument is that record.

    Two records are equal only if they are the same object. The representation is short whatever the content, because
    shared content can be exponentially larger when written out.
    """

    module: str
    name: str
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    items: dict = field(default_factory=dict)
    elements: list = field(default_factory=list)

    @property
    def path(self) -> str:
        """Dotted path of the class or function, for messages."""
        return f"{self.module}.{self.name}"

    @property
    def attributes(self) -> dict[str, Any]:
        """The instance's attributes: ``state`` where that is a dict, its dicts where it is a pair with slots."""
        if isinstance(self.state, dict):
            return self.state
        if isinstance(self.state, tuple) and len(self.state) == 2:
            return {name: value for part in self.state if isinstance(part, dict) for name, value in part.items()}
        return {}

    def __repr__(self) -> str:
        return f"Record({shown(self.path)}, {len(self.args)} arguments, {len(self.attributes)} attributes)"


def shown(value: Any) -> str:
    """Text or a number out of a file, quoted and short enough for a one-line message; other things by their type."""
    if not isinstance(value, str | bytes | int | float | bool | None):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
