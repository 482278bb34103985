"""A pickle machine that cannot run anything.

The standard unpickler calls what the file tells it to, sets attributes on what it finds and allocates what it is told
to; restricting its ``find_class`` still leaves calls, attribute writes and allocations to the file. This machine
implements the pickle language (protocols 0 to 5) over three kinds of values only: plain Python data, what the caller's
own ``calls`` build (tensors, arrays), and the inert :class:`Global` and :class:`Record`. A call of a name that is not
in ``calls`` makes a record. Work and memory are proportional to the length of the pickle, whatever its numbers claim.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.records import Global, Record, shown

Name = tuple[str, str]
_PROTOCOLS = range(6)
_OPERATIONS = 2_000_000
_CONTAINERS = 500_000
_MEMO = 2**32
_KEY_PARTS = 64
_KEY_BITS = 60
_DIGITS = 1000


class Stateful(Protocol):
    """A value still being built, which a later BUILD instruction completes (a NumPy dtype, an array)."""

    def __build__(self, state: Any) -> None: ...


class PickleMachine:
    """Interprets one pickle at a time out of ``data``.

    Args:
        data: bytes or a memory map that holds the pickle.
        position: where it begins; after :meth:`run` it is where the pickle ended.
        calls: functions of ours that stand in for (module, name) pairs; they get the file's arguments and must check
            them.
        constants: values of ours that stand in for (module, name) pairs that are not called.
        persistent: turns a persistent id into a value (torch stores tensors' storages that way); None refuses ids.
    """

    def __init__(
        self,
        data: Any,
        position: int = 0,
        *,
        calls: Mapping[Name, Callable[..., Any]],
        constants: Mapping[Name, Any],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data = data
        self.position = position
        self._calls = calls
        self._constants = constants
        self._persistent = persistent
        self._containers = 0
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle describes.

        Raises:
            CheckpointError: if the pickle is damaged, ends early, uses an instruction that needs code (extension
                registry, out-of-band buffers), or is built to exhaust time or memory.
        """
        self._stack, self._marks, self._memo = [], [], {}
        for _ in range(_OPERATIONS):
            code = self._take(1)[0]
            if code == _STOP:
                if len(self._stack) != 1 or self._marks:
                    raise CheckpointError("the pickle ends with an unbalanced stack")
                return self._stack.pop()
            operation = _TABLE.get(code)
            if operation is None:
                raise CheckpointError(_REFUSED.get(code, f"byte 0x{code:02x} is no pickle instruction"))
            operation(self)
        raise CheckpointError(f"the pickle has more than {_OPERATIONS} instructions")

    # -- reading ------------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            missing = "" if count < 0 else f" ({count} bytes wanted, {len(self.data) - self.position} left)"
            raise CheckpointError(f"the pickle ends early or states a wrong length{missing}")
        taken = bytes(self.data[self.position : end])
        self.position = end
        return taken

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise CheckpointError("the pickle ends inside a line of text")
        line = self._take(end - self.position)
        self.position += 1
        return line.decode("latin-1")

    def _block(self, form: str) -> bytes:
        return self._take(self._number(form))

    # -- stack --------------------------------------------------------------------------------------------------------

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _contain(self, value: Any) -> None:
        self._containers += 1
        if self._containers > _CONTAINERS:
            raise CheckpointError(f"the pickle makes more than {_CONTAINERS} containers")
        self._stack.append(value)

    def _pop(self, count: int = 1) -> list[Any]:
        if len(self._stack) < count:
            raise CheckpointError("the pickle takes more from its stack than it put there")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def _top(self) -> Any:
        if not self._stack:
            raise CheckpointError("the pickle uses an empty stack")
        return self._stack[-1]

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise CheckpointError("the pickle uses a mark that it never set")
        values, self._stack = self._stack, self._marks.pop()
        return values

    def _discard(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    # -- memo ---------------------------------------------------------------------------------------------------------

    def _remember(self, index: int) -> None:
        if not 0 <= index < _MEMO:
            raise CheckpointError(f"the pickle stores an object under the number {shown(index)}")
        self._memo[index] = self._top()

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError(f"the pickle refers to object {index}, which it never stored")
        self._push(self._memo[index])

    # -- text forms ---------------------------------------------------------------------------------------------------

    def _text_integer(self) -> int | bool:
        line = self._line()
        if line in ("00", "01"):
            return line == "01"
        return self._decimal(line.removesuffix("L"))

    def _decimal(self, line: str) -> int:
        if len(line) > _DIGITS:
            raise CheckpointError(f"the pickle holds a decimal number of {len(line)} digits")
        return int(line)

    def _quoted(self) -> str:
        line = self._line()
        if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
            raise CheckpointError("the pickle holds a string without quotes")
        return line[1:-1].encode("latin-1").decode("unicode_escape")

    # -- containers ---------------------------------------------------------------------------------------------------

    def _set_items(self, pairs: list[Any]) -> None:
        target = self._top()
        if len(pairs) % 2:
            raise CheckpointError("the pickle fills a dict with an odd number of keys and values")
        target = target.items if isinstance(target, Record) else target
        if not isinstance(target, dict):
            raise CheckpointError(f"the pickle stores items in {shown(target)}")
        for index in range(0, len(pairs), 2):
            target[hashable(pairs[index])] = pairs[index + 1]

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        target = target.elements if isinstance(target, Record) else target
        if not isinstance(target, list):
            raise CheckpointError(f"the pickle appends to {shown(target)}")
        target.extend(values)

    def _add(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Record):
            target.elements.extend(values)
        elif isinstance(target, set):
            target.update(hashable(value) for value in values)
        else:
            raise CheckpointError(f"the pickle adds members to {shown(target)}")

    def _pairs(self, values: list[Any]) -> None:
        self._contain({})
        self._set_items(values)

    # -- names and calls ----------------------------------------------------------------------------------------------

    def _name(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("the pickle names a class with something that is not text")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        return self._constants.get((module, name)) or Global(module, name)

    def _call(self, callee: Any, args: Any, kwargs: Any = None) -> None:
        if not isinstance(args, tuple) or not isinstance(kwargs, dict | None):
            raise CheckpointError("the pickle calls something with arguments that are not a tuple")
        if isinstance(callee, Record):
            self._contain(Record(callee.module, f"{callee.name[:200]}()", (callee, *args), kwargs or {}))
        elif not isinstance(callee, Global):
            raise CheckpointError(f"the pickle calls {shown(callee)}")
        elif (ours := self._calls.get((callee.module, callee.name))) is not None:
            try:
                self._contain(ours(*args, **(kwargs or {})))
            except TypeError as error:
                raise CheckpointError(f"the pickle calls {shown(callee.path)} with wrong arguments") from error
        else:
            self._contain(Record(callee.module, callee.name, args, kwargs or {}))

    def _instance(self) -> None:
        module, name = self._line(), self._line()
        self._call(self._name(module, name), tuple(self._since_mark()))

    def _object(self) -> None:
        values = self._since_mark()
        if not values:
            raise CheckpointError("the pickle makes an object of no class")
        self._call(values[0], tuple(values[1:]))

    def _build(self) -> None:
        target, state = self._pop(2)
        if isinstance(target, Record):
            target.state = state
        elif hasattr(type(target), "__build__"):
            target.__build__(state)
        elif not isinstance(target, dict):
            # A dict's attributes (torch keeps version numbers on state dicts) carry no weights: dropped.
            raise CheckpointError(f"the pickle sets the state of {shown(target)}")
        self._push(target)

    def _refer(self, identity: Any) -> None:
        if self._persistent is None:
            raise CheckpointError("the pickle refers to data outside of it, but the file has none")
        self._push(self._persistent(identity))


def hashable(value: Any) -> Any:
    """``value`` if it can be a dict's key without the file choosing how long hashing and comparing take."""
    pending, parts = [value], 0
    while pending:
        part, parts = pending.pop(), parts + 1
        if isinstance(part, tuple | frozenset):
            pending.extend(part)
        elif isinstance(part, int) and part.bit_length() > _KEY_BITS:
            raise CheckpointError("the pickle uses a huge integer as a key")
        elif isinstance(part, list | dict | set | bytearray):
            raise CheckpointError(f"the pickle uses a {type(part).__name__} as a key")
        if parts + len(pending) > _KEY_PARTS:
            raise CheckpointError("the pickle uses a deeply nested tuple as a key")
    return value


_STOP = ord(".")
_REFUSED = {
    **dict.fromkeys(b"\x82\x83\x84", "the pickle uses the extension registry, which only code can fill"),
    **dict.fromkeys(b"\x97\x98", "the pickle keeps its buffers outside of the file"),
}


def _protocol(machine: PickleMachine) -> None:
    number = machine._number("<B")
    if number not in _PROTOCOLS:
        raise CheckpointError(f"pickle protocol {number} is unknown")


def _frame(machine: PickleMachine) -> None:
    length = machine._number("<Q")
    if length > len(machine.data) - machine.position:
        raise CheckpointError(f"the pickle ends early or states a wrong length ({length} bytes in a frame)")


_M = PickleMachine
_INSTRUCTIONS: dict[str | int, Callable[[PickleMachine], Any]] = {
    0x80: _protocol,
    0x95: _frame,
    # stack and memo
    "(": _M._mark,
    "0": _M._discard,
    "1": _M._since_mark,
    "2": lambda m: m._push(m._top()),
    "p": lambda m: m._remember(m._decimal(m._line())),
    "q": lambda m: m._remember(m._number("<B")),
    "r": lambda m: m._remember(m._number("<I")),
    0x94: lambda m: m._remember(len(m._memo)),
    "g": lambda m: m._recall(m._decimal(m._line())),
    "h": lambda m: m._recall(m._number("<B")),
    "j": lambda m: m._recall(m._number("<I")),
    # constants and numbers
    "N": lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    "I": lambda m: m._push(m._text_integer()),
    "L": lambda m: m._push(m._decimal(m._line().removesuffix("L"))),
    "J": lambda m: m._push(m._number("<i")),
    "K": lambda m: m._push(m._number("<B")),
    "M": lambda m: m._push(m._number("<H")),
    0x8A: lambda m: m._push(int.from_bytes(m._block("<B"), "little", signed=True)),
    0x8B: lambda m: m._push(int.from_bytes(m._block("<i"), "little", signed=True)),
    "F": lambda m: m._push(float(m._line())),
    "G": lambda m: m._push(m._number(">d")),
    # text and bytes; Python 2 wrote both with the first three, and latin-1 keeps either recoverable
    "S": lambda m: m._push(m._quoted()),
    "T": lambda m: m._push(m._block("<i").decode("latin-1")),
    "U": lambda m: m._push(m._block("<B").decode("latin-1")),
    "V": lambda m: m._push(m._line().encode("latin-1").decode("raw-unicode-escape")),
    "X": lambda m: m._push(m._block("<I").decode("utf-8", "surrogatepass")),
    0x8C: lambda m: m._push(m._block("<B").decode("utf-8", "surrogatepass")),
    0x8D: lambda m: m._push(m._block("<Q").decode("utf-8", "surrogatepass")),
    "B": lambda m: m._push(m._block("<I")),
    "C": lambda m: m._push(m._block("<B")),
    0x8E: lambda m: m._push(m._block("<Q")),
    0x96: lambda m: m._push(bytearray(m._block("<Q"))),
    # containers
    ")": lambda m: m._push(()),
    "t": lambda m: m._contain(tuple(m._since_mark())),
    0x85: lambda m: m._contain(tuple(m._pop(1))),
    0x86: lambda m: m._contain(tuple(m._pop(2))),
    0x87: lambda m: m._contain(tuple(m._pop(3))),
    "]": lambda m: m._contain([]),
    "l": lambda m: m._contain(m._since_mark()),
    "a": lambda m: m._append(m._pop()),
    "e": lambda m: m._append(m._since_mark()),
    "}": lambda m: m._contain({}),
    "d": lambda m: m._pairs(m._since_mark()),
    "s": lambda m: m._set_items(m._pop(2)),
    "u": lambda m: m._set_items(m._since_mark()),
    0x8F: lambda m: m._contain(set()),
    0x90: lambda m: m._add(m._since_mark()),
    0x91: lambda m: m._contain(frozenset(hashable(value) for value in m._since_mark())),
    # names, calls, references
    "c": lambda m: m._push(m._name(m._line(), m._line())),
    0x93: lambda m: m._push(m._name(*m._pop(2))),
    "R": lambda m: m._call(*m._pop(2)),
    0x81: lambda m: m._call(*m._pop(2)),
    0x92: lambda m: m._call(*m._pop(3)),
    "i": _M._instance,
    "o": _M._object,
    "b": _M._build,
    "P": lambda m: m._refer(m._line()),
    "Q": lambda m: m._refer(m._pop()[0]),
}
_TABLE = {ord(code) if isinstance(code, str) else code: operation for code, operation in _INSTRUCTIONS.items()}
