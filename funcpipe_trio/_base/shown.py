r"""How is a user's value shown in a message, a plan or a report? Briefly, and never the content of an item.

A wrong argument may be an item, or a list of a million: a message that prints all of it is 8 MB long, and shows readers
of the log what was on the card. So a value that is neither a name nor a number is shown by its type and size; its
``__repr__`` is not called, which may fail or never return. Names and keys are shown, since that is their purpose; a
long one is shortened, and what cannot be printed (terminal escape codes, line breaks, lone surrogates) is escaped as
Python does it: ``\x1b``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from fractions import Fraction
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from .functions import LONGEST_NAME, function_name, is_async, yields_async

_NAME = 60  # characters of a name
_OPTION = 40  # characters of a word where one of a few is expected
_TEXT = 500  # characters of an error's text
_LINE = 2000  # characters of a line
_BITS = 128  # of a number
_ROW = 240  # characters of a list of names
_FEW = 5  # parts of a key
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset, range)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, partial)


def line_of(text: str) -> str:
    """Make one line of a plan or a report from any text."""
    return escaped(cut(text, _LINE))


def escaped(text: str) -> str:
    """Escape characters that cannot be printed, as in a Python string."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def cut(text: str, most: int = _NAME) -> str:
    """Return the text, shortened if it is too long."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def type_name(value: object) -> str:
    """Return the name of a value's type, even if its metaclass overrides ``__name__``."""
    return _name_of(type(value))


def kind_of(value: object) -> str:
    """Return the type of a value with its article: ``an int``."""
    return with_article(type_name(value))


def shown(value: object) -> str:
    """Show a rejected value: the value itself if it is a number or similar, otherwise its type and size."""
    kind: Any = type(value)
    if value is None or kind in (bool, float, complex):
        return repr(value)
    if kind is int or kind is Fraction:
        return _number(value)
    if isinstance(value, type):
        return f"the type {_name_of(value)}"
    if isinstance(value, _FUNCTIONS):
        how = "async generator " if yields_async(value) else "async " if is_async(value) else ""
        return f"the {how}function {cut(escaped(function_name(value)))}"
    size = f" of length {len(value)}" if kind in _SIZED else ""  # type: ignore[arg-type]  # those have one
    return f"{kind_of(value)}{size}"


def option(value: object) -> str:
    """Show a value that was given where one of a few words is expected."""
    return repr(value) if type(value) is str and len(value) <= _OPTION else shown(value)


def named(name: object) -> str:
    """Show a name or a key, in quotes if it is a string."""
    if type(name) is str:
        return repr(cut(name)) if len(name) <= LONGEST_NAME else shown(name)
    if type(name) is tuple:
        parts = [shown(part) if type(part) is tuple else named(part) for part in name[:_FEW]]
        inside = ", ".join([*parts, *(["..."] if len(name) > _FEW else [])])
        return f"({inside},)" if len(name) == 1 else f"({inside})"
    if isinstance(name, Enum):
        return f"{type_name(name)}.{cut(escaped(name.name))}"
    return shown(name)


def listed(names: Iterable[object]) -> str:
    """Show the first few names, and how many more there are."""
    first: list[str] = []
    size = more = 0
    for name in names:
        size += 0 if more else len(named(name)) + 2
        if size > _ROW and first:
            more += 1
        else:
            first.append(named(name))
    return ", ".join([*first, *([f"and {more} more"] if more else [])]) or "none"


def label(key: object) -> str:
    """Show a key as a plan or a report does: by its own ``str()`` if its type defines one."""
    kind: Any = type(key)
    if isinstance(key, str):
        return cut(str.__str__(key))
    if kind is tuple or isinstance(key, Enum) or (kind.__repr__, kind.__str__) == (object.__repr__, object.__str__):
        return named(key)
    try:
        return cut(str(key))
    except Exception:  # raised by the key itself, or an int with too many digits
        return shown(key)


def quoted(key: object) -> str:
    """Show a key as `label` does, but in quotes if it is a string."""
    return named(key) if type(key) is str else label(key)


def told(error: BaseException) -> str:
    """Return the type and text of an error, or at least its type."""
    try:
        text = str(error)
    except Exception:  # raised by the error's own `__str__`
        text = "(its text cannot be shown)"
    return f"{type_name(error)}: {escaped(cut(text, _TEXT))}"


def _number(value: Any) -> str:
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    return repr(value) if bits <= _BITS else f"{kind_of(value)} of {bits} bits"


def _name_of(kind: type) -> str:
    return cut(escaped(type.__dict__["__name__"].__get__(kind)))


def with_article(name: str) -> str:
    """Put the article before a name: ``an int``."""
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"
