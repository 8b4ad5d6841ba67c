"""`dataclass` for values that never change, at a fifteenth of the price: when is its code generated?

The standard decorator writes and compiles `__init__`, `__repr__`, `__eq__` and `__hash__` of a class when the class is
made: 0.4 ms for each of our 70 classes, half of what it takes to import this package, though a program uses only some
of them. Here the standard decorator is asked to write nothing; it does so for a class of the same fields when one of
these methods is first looked up, and that is what the class has from then on. So they are the same methods, only later.

To a reader and to a type checker it is `dataclasses.dataclass`; fields, `replace`, pickling, matching and subclasses
made by the standard decorator are, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

_WRITTEN = ("__init__", "__repr__", "__eq__", "__hash__")


class _Later:
    """Stands in the place of a method that was not written yet."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        _write(self._owner)
        return getattr(self._owner if instance is None else instance, self._name)


def _write(cls: type[Any]) -> None:
    """Put the methods in their places. Twice (two threads may look one up at once) does no harm."""
    inside: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__annotations__": {}}
    for each in dataclasses.fields(cls):
        inside["__annotations__"][each.name] = each.type
        inside[each.name] = dataclasses.field(
            default=each.default,
            default_factory=each.default_factory,
            init=each.init,
            repr=each.repr,
            hash=each.hash,
            compare=each.compare,
            kw_only=each.kw_only,
        )
    if hasattr(cls, "__post_init__"):
        inside["__post_init__"] = None  # only that there is one; which, is looked up at each object
    twin: type[Any] = dataclasses.dataclass(frozen=True)(type(cls.__name__, (), inside))
    for name in _WRITTEN:
        if isinstance(cls.__dict__.get(name), _Later):
            setattr(cls, name, getattr(twin, name))


def _refuse_set(self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


def _made(cls: type[Any], *, slots: bool) -> type[Any]:
    """Let the standard decorator do all but to write methods; with slots it makes the class anew."""
    # It would write two methods for a frozen class, and refuses what is not frozen under one that is: so all are
    # called frozen when they are made, and not before.
    bases = [base.__dict__["__dataclass_params__"] for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]
    for params in bases:
        params.frozen = False
    try:
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    finally:
        for params in bases:
            params.frozen = True
    made.__dataclass_params__.frozen = True
    return made  # type: ignore[no-any-return]


_GUARDS = {"__setattr__": _refuse_set, "__delattr__": _refuse_delete}
_STATE = {"__getstate__": _state, "__setstate__": _set_state}  # with slots; else to copy or unpickle would assign

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, slots: bool = False) -> Callable[[type[Any]], type[Any]]:
        """Make a frozen class; `frozen` is said where it is used, as readers know it."""
        assert frozen

        def made(cls: type[Any]) -> type[Any]:
            own = {name: _Later() for name in _WRITTEN} | _GUARDS | (_STATE if slots else {})
            for name in own.keys() - cls.__dict__.keys():
                setattr(cls, name, own[name])
            cls = _made(cls, slots=slots)
            for name in _WRITTEN:
                if isinstance(later := cls.__dict__[name], _Later):
                    later.__set_name__(cls, name)
            return cls

        return made
