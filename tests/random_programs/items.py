"""Items that refuse to be looked at, and errors of every kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import trio

from funcpipe_trio import Aborted, Failure
from tests._kit import Boom

# ---- items


class Looked(Exception):
    """An item was hashed, compared, printed, iterated or tested for truth."""


LOOKED: list[str] = []


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(self: Any, *_: Any) -> Any:
        caller = sys._getframe(1)
        LOOKED.append(f"{name} by {caller.f_code.co_filename.rsplit('/', 1)[-1]}:{caller.f_code.co_name}")
        raise Looked(name)

    return refuse


class Opaque:
    """It refuses to be looked at."""

    __slots__ = ()
    for _name in ("eq", "ne", "lt", "gt", "bool", "len", "iter", "repr", "str", "contains", "hash", "format", "call"):
        locals()[f"__{_name}__"] = _refusal(_name)
    del _name


class Item(Opaque):
    """What comes from a source; its id says from where, its number decides what functions do with it."""

    __slots__ = ("id", "num")

    def __init__(self, id: Any, num: int) -> None:
        self.id, self.num = id, num


class HashableItem(Item):
    """One for `distinct` without a key."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class ItemError(trio.EndOfChannel):
    """An item that is an exception, of the worst kind."""

    def __init__(self, id: Any, num: int) -> None:
        super().__init__()
        self.id, self.num = id, num


class Wrap(Opaque):
    """What a function gives for a value."""

    __slots__ = ("inner", "op")

    def __init__(self, op: Any, inner: Any) -> None:
        self.op, self.inner = op, inner


ITEMS = (Item, HashableItem, ItemError)


def leaves(value: Any) -> Iterator[Any]:
    """All items in a value."""
    kind = type(value)
    while kind is Wrap:
        value = value.inner
        kind = type(value)
    if kind in ITEMS:
        yield value
    elif kind is list or kind is tuple:
        for each in value:
            yield from leaves(each)
    elif kind is Failure:
        yield from leaves(value.item)


def first_leaf(value: Any) -> Any:
    return next(leaves(value), None)


def num(value: Any) -> int:
    leaf = first_leaf(value)
    return 0 if leaf is None else leaf.num


def root_of(id: Any) -> Any:
    while type(id[0]) is tuple:
        id = id[0]
    return id


def num_of(id: Any) -> int:
    root = root_of(id)
    return 100 * root[0] + root[1]


# ---- errors


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")

    __repr__ = object.__repr__  # trio asks for it in a nursery


class NoNotes(Exception):
    __notes__ = None


class NoEq(Exception):
    __hash__ = None

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")


class FalsyBase(BaseException):
    def __bool__(self) -> bool:
        return False


ERRORS: dict[str, Callable[[], BaseException]] = {
    "error": Boom,
    "aborted": lambda: Aborted("mine"),
    "falsy": Falsy,
    "badstr": BadStr,
    "nonotes": NoNotes,
    "noeq": NoEq,
    "stopiter": StopIteration,
    "stopasync": StopAsyncIteration,
    "endofchannel": trio.EndOfChannel,
    "group": lambda: ExceptionGroup("mine", [Boom()]),
    "tooslow": trio.TooSlowError,
    "closed": trio.ClosedResourceError,
    "broken": trio.BrokenResourceError,
    "wouldblock": trio.WouldBlock,
    "busy": trio.BusyResourceError,
    "keyboard": KeyboardInterrupt,
    "falsybase": FalsyBase,
}
STOPS = ("stopiter", "stopasync", "endofchannel")  # user code that raises these: a RuntimeError with it as cause
FATAL = ("keyboard", "falsybase")
