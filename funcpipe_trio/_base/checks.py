"""What must a value be? Each function states one rule: it returns the value, or raises with the value and the rule.

A wrong type is a `TypeError`, a wrong range a `ValueError`; both read ``<where>: <name> must <rule>, not <value>``.
A bool is not a number here: ``capacity=True`` is a mistake, not a 1.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

from .functions import is_async, yields_async
from .shown import option, shown, with_article

T = TypeVar("T")


def refuse(
    kind: type[Exception],
    where: str,
    name: str,
    rule: str,
    value: object,
    use: str = "",
    *,
    show: Callable[[object], str] = shown,
) -> Exception:
    """Make the error for one broken rule; ``use`` is the usual fix, ``show`` formats the value."""
    fix = f"\n{use}" if use else ""
    return kind(f"{where}: {name} must {rule}, not {show(value)}{fix}")


def integer(where: str, name: str, value: Any, *, at_least: int) -> int:
    """Check for an int of at least ``at_least`` that can be a length: at most `sys.maxsize`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(TypeError, where, name, f"be an int >= {at_least}", value)
    if value < at_least:
        raise refuse(ValueError, where, name, f"be >= {at_least}", value)
    if value > sys.maxsize:
        raise refuse(ValueError, where, name, f"be <= sys.maxsize, {sys.maxsize}", value)
    return value


def any_integer(where: str, name: str, value: Any) -> int:
    """Check for an int of any size."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(TypeError, where, name, "be an int", value)
    return value


def boolean(where: str, name: str, value: Any) -> bool:
    """Check for an actual bool: other truthy or falsy values are rejected."""
    if not isinstance(value, bool):
        raise refuse(TypeError, where, name, "be a bool", value)
    return value


def number(
    where: str,
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> float:
    """Check for a finite number in a range: an int or float, not NaN."""
    limits = [(">=", at_least), (">", above), ("<=", at_most)]
    said = " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
    rule = f"be a finite number {said}".rstrip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(TypeError, where, name, rule, value)
    too_small = (at_least is not None and value < at_least) or (above is not None and value <= above)
    if not is_finite(value) or too_small or (at_most is not None and value > at_most):
        raise refuse(ValueError, where, name, rule, value)
    return value


def seconds(where: str, name: str, value: Any, *, positive: bool = True, finite: bool = True) -> float:
    """Check for a time in seconds: an int or float, not NaN, above zero (or at least zero)."""
    rule = "be a number of seconds " + ("> 0" if positive else ">= 0")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(TypeError, where, name, rule, value)
    if value != value or value < 0 or (positive and value == 0) or (finite and not is_finite(value)):
        raise refuse(ValueError, where, name, rule + (", finite" if finite else ""), value)
    return float(value) if is_finite(value) else math.inf


def is_finite(value: float) -> bool:
    """Return whether a number is a finite float or can be converted to one."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int too large for a float
        return False


def text(where: str, name: str, value: Any) -> str:
    """Check for a string that is not empty."""
    if not isinstance(value, str):
        raise refuse(TypeError, where, name, "be a str", value)
    if not value:
        raise refuse(ValueError, where, name, "not be empty", value, show=option)
    return value


def choice(where: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Check for one of a few words."""
    rule = f"be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
    if not isinstance(value, str):
        raise refuse(TypeError, where, name, rule, value)
    if value not in choices:
        raise refuse(ValueError, where, name, rule, value, show=option)
    return value


def instance(where: str, name: str, value: Any, kind: type[T], use: str = "") -> T:
    """Check an object of a class, which the rule calls by its name."""
    if not isinstance(value, kind):
        raise refuse(TypeError, where, name, f"be {with_article(kind.__name__)}", value, use)
    return value


def mapping(where: str, name: str, value: Any, of: str) -> Mapping[Any, Any]:
    """Check a mapping, ``of`` what to what."""
    if not isinstance(value, Mapping):
        raise refuse(TypeError, where, name, f"be a mapping of {of}", value)
    return value


def hashable(where: str, name: str, value: Any) -> None:
    """Check for a key. Where every item has one, ask only once hashing it has failed: then this tells why.

    What a key's own ``__hash__`` raises is the key's, and passes, unless it is a `TypeError`: that is its cause then.
    """
    try:
        hash(value)
    except TypeError as error:
        use = "Use a tuple, or another value that can be a key."
        raise refuse(TypeError, where, name, "be hashable", value, use) from error


def callable_(where: str, name: str, value: Any) -> Callable[..., Any]:
    """Check for a callable."""
    if not callable(value):
        raise refuse(TypeError, where, name, "be callable", value)
    return value  # type: ignore[no-any-return]  # callable() narrows Any to a callable of unknown shape


def sync_callable(where: str, name: str, value: Any) -> Callable[..., Any]:
    """Check for a function whose result is not awaited."""
    callable_(where, name, value)
    if is_async(value) or yields_async(value):
        raise refuse(TypeError, where, name, "be a sync function", value)
    return value  # type: ignore[no-any-return]  # as above


def takes(where: str, name: str, value: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Check that a function can be called with ``count`` arguments, if it has a signature."""
    try:
        inspect.signature(value).bind(*range(count))
    except TypeError as error:
        raise TypeError(f"{where}: {name} must take {count} arguments: {error}") from None
    except ValueError:  # a C function without a signature
        pass
    return value


def async_callable(where: str, name: str, value: Any, rule: str = "be an async function") -> Callable[..., Any]:
    """Check for a function whose result is awaited."""
    if not callable(value) or not is_async(value):
        raise refuse(TypeError, where, name, rule, value)
    return value  # type: ignore[no-any-return]  # as above


def weight(where: str, name: str, value: Any) -> int | Fraction:
    """Check for a weight: an exact positive number, so that shares stay exact forever, and one that can be printed."""
    checked = _exact(where, name, value, "be a positive int or Fraction")
    if not (is_finite(checked.numerator) and is_finite(checked.denominator)):
        raise refuse(ValueError, where, name, "have a numerator and a denominator < 1e308", value)
    return checked


def cost(where: str, name: str, value: Any) -> int | Fraction:
    """Check for a cost: an exact positive number; with a cost of zero one input could run forever."""
    return _exact(where, name, value, "be a positive int or Fraction")


def real_cost(where: str, name: str, value: Any) -> int | Fraction:
    """Check for what something has cost: an exact number; it may be nothing."""
    return _exact(where, name, value, "be an int or Fraction >= 0", or_zero=True)


def _exact(where: str, name: str, value: Any, rule: str, *, or_zero: bool = False) -> int | Fraction:
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        raise refuse(TypeError, where, name, rule, value, _as_fraction(value))
    if value < 0 or (value == 0 and not or_zero):
        raise refuse(ValueError, where, name, rule, value)
    return value


def _as_fraction(value: object) -> str:
    """Suggest the exact number to write instead of a float."""
    if isinstance(value, float) and math.isfinite(value) and value > 0:
        near = Fraction(value).limit_denominator(1000) or Fraction(value)
        return f"Use Fraction({near.numerator}, {near.denominator})."
    return ""
