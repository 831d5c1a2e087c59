"""Reading a pickle without running it: every object in it becomes an inert record of what it says.

Python's own unpickler calls whatever a pickle names. This one is a machine of its own over the opcodes that
`pickletools` parses: a name becomes a `Named`, a call a `Made`, and nothing named is ever looked up, imported
or called. Nothing is hashed or compared either (keys that contain themselves many times over would take for
ever), and no step uses more memory than the bytes it was read from: time and memory are linear in the file.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO


class PickleError(Exception):
    """The bytes are no pickle, or one that contradicts itself."""


@dataclass(frozen=True, eq=False)
class Named:
    """A global that a pickle names, e.g. a class; `module` and `name` as they stand there."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class Persistent:
    """Something that is kept outside of the pickle, by what the pickle says of it."""

    identity: Any


@dataclass(eq=False, repr=False)
class Pairs:
    """A dict as its pairs, in the order in which they were set."""

    items: list[tuple[Any, Any]] = field(default_factory=list)

    def by_name(self) -> dict[str, Any]:
        """The pairs whose key is a text."""
        return {key: value for key, value in self.items if isinstance(key, str)}


@dataclass(eq=False, repr=False)
class Made:
    """What a call would have made: who was to be called with what, and what was then put into it."""

    maker: Any
    arguments: Any
    states: list[Any] = field(default_factory=list)
    items: list[tuple[Any, Any]] = field(default_factory=list)
    elements: list[Any] = field(default_factory=list)


@dataclass
class Unpickled:
    """What a pickle says: its outermost value, every global that it names, and what is kept outside of it."""

    value: Any
    globals_met: set[str]
    persistent: list[Persistent]


_MARK = object()
_VALUES = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (),
}  # fmt: skip
_FRESH: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": Pairs,
}  # fmt: skip
_NOTHING_TO_DO = ("PROTO", "FRAME", "STOP")
_ARGUMENT_IS_VALUE = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "FLOAT", "BINFLOAT",
}  # fmt: skip


def unpickle(stream: BinaryIO) -> Unpickled:
    """Read one pickle from where the stream stands; afterwards it stands behind it.

    Raises
    ------
    PickleError
        Truncated, malformed, or of opcodes that files of weights have no use for.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `pickletools` about odd escapes in texts
            for opcode, argument, _ in pickletools.genops(stream):
                machine.step(opcode.name, argument)
        value = machine.stack.pop()
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise PickleError(f"it is no whole pickle ({str(error)[:150]})") from error
    if value is _MARK or machine.stack:
        raise PickleError("it does not end with one value")
    return Unpickled(value, machine.globals_met, machine.persistent)


class _Machine:
    """Stack and memo of a pickle; `step` does one opcode."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.globals_met: set[str] = set()
        self.persistent: list[Persistent] = []

    def step(self, opcode: str, argument: Any) -> None:
        """Do one opcode of the pickle protocols 0 to 5 (their meaning: `pickletools`)."""
        if opcode in _NOTHING_TO_DO:
            return
        if opcode in _ARGUMENT_IS_VALUE:
            self.stack.append(argument)
        elif opcode in _VALUES:
            self.stack.append(_VALUES[opcode])
        elif opcode in _FRESH:
            self.stack.append(_FRESH[opcode]())
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self._top()
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        else:
            act = getattr(self, f"do_{opcode.lower()}", None)
            if act is None:  # e.g. EXT1, NEXT_BUFFER
                raise PickleError(f"it uses {opcode}, which files of weights do not")
            act(argument)

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("a value is missing")
        return self.stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        del self.stack[-1]
        return value

    def _pop_to_mark(self) -> list[Any]:
        """Values above the topmost mark, which goes as well."""
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def do_pop(self, _: Any) -> None:
        self.stack.pop()

    def do_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def do_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def do_dup(self, _: Any) -> None:
        self.stack.append(self._top())

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def do_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleError("a global is not named by texts")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = Named(module, name)
        self.globals_met.add(str(found))
        self.stack.append(found)

    def do_persid(self, argument: str) -> None:
        self._keep_outside(argument)

    def do_binpersid(self, _: Any) -> None:
        self._keep_outside(self._pop())

    def _keep_outside(self, identity: Any) -> None:
        self.persistent.append(Persistent(identity))
        self.stack.append(self.persistent[-1])

    def do_reduce(self, _: Any) -> None:
        arguments, maker = self._pop(), self._pop()
        self.stack.append(Made(maker, arguments))

    do_newobj = do_reduce

    def do_newobj_ex(self, _: Any) -> None:
        self._pop()  # arguments by name
        self.do_reduce(None)

    def do_inst(self, argument: str) -> None:
        arguments = tuple(self._pop_to_mark())
        self.do_global(argument)
        self.stack.append(Made(self._pop(), arguments))

    def do_obj(self, _: Any) -> None:
        maker, *arguments = self._pop_to_mark()
        self.stack.append(Made(maker, tuple(arguments)))

    def do_build(self, _: Any) -> None:
        state = self._pop()
        target = self._top()
        if not isinstance(target, Made):
            raise PickleError("a state is given to what has none")
        target.states.append(state)

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def do_tuple1(self, _: Any) -> None:
        self.stack.append((self._pop(),))

    def do_tuple2(self, _: Any) -> None:
        second, first = self._pop(), self._pop()
        self.stack.append((first, second))

    def do_tuple3(self, _: Any) -> None:
        third, second, first = self._pop(), self._pop(), self._pop()
        self.stack.append((first, second, third))

    def do_list(self, _: Any) -> None:
        self.stack.append(self._pop_to_mark())

    do_frozenset = do_list

    def do_append(self, _: Any) -> None:
        self._extend([self._pop()])

    def do_appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    do_additems = do_appends

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Made):
            target.elements.extend(values)
        else:
            raise PickleError("elements are put into what is no list")

    def do_dict(self, _: Any) -> None:
        self.stack.append(Pairs(_paired(self._pop_to_mark())))

    def do_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def do_setitems(self, _: Any) -> None:
        self._set(self._pop_to_mark())

    def _set(self, flat: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, (Pairs, Made)):
            raise PickleError("items are put into what is no dict")
        target.items.extend(_paired(flat))


def _paired(flat: list[Any]) -> list[tuple[Any, Any]]:
    """Keys and values in turn -> pairs."""
    if len(flat) % 2:
        raise PickleError("a key has no value")
    return list(zip(flat[::2], flat[1::2]))
