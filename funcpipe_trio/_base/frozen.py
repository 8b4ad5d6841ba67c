"""`dataclass` for values that never change, at a thirtieth of the price: when is its code generated?

The standard decorator reads the fields of a class, and writes and compiles its methods, when the class is made: 0.4 ms
for each of our 80 classes, half of what it takes to import this package, though a program uses only some of them. Here
a class is only given its slots when it is made. All else the standard decorator is asked for, with a class of the same
fields, when it is first looked up, and that is what the class has from then on. So it is the same, only later.

To a reader and to a type checker it is `dataclasses.dataclass`; fields, `replace`, pickling, matching and subclasses
made by the standard decorator are, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

_METHODS = ("__init__", "__repr__", "__eq__", "__hash__")
_FACTS = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")

_Said = tuple[str, object, bool]  # of a field: its type, its default or what `field` made, and whether behind KW_ONLY


class _Later:
    """Stands in the place of what nobody has looked up yet."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        _write(self._owner, self._name)
        written = self._owner.__dict__[self._name]  # not what a subclass has in its place, which asks by `super()`
        return written.__get__(instance, owner) if self._name in _METHODS else written


def _write(cls: type[Any], name: str) -> None:
    """Put one method in its place, or the facts. Twice (two threads may look one up at once) does no harm."""
    said: dict[str, _Said] = cls.__frozen__
    inside = {each: _field(*what) for each, what in said.items()}
    inside |= {"__module__": cls.__home__, "__qualname__": cls.__qualname__}
    inside["__annotations__"] = {each: kind for each, (kind, _default, _kw_only) in said.items()}
    inside["__doc__"] = cls.__doc__  # else one is made of the signature, which takes a quarter of the time
    if hasattr(cls, "__post_init__"):
        inside["__post_init__"] = None  # only that there is one; which, is looked up at each object
    is_comparison = name in ("__eq__", "__hash__")
    standard = dataclasses.dataclass(init=name == "__init__", repr=name == "__repr__", eq=is_comparison, frozen=True)
    twin: type[Any] = standard(type(cls.__name__, (), inside))
    params = twin.__dataclass_params__
    params.init = params.repr = params.eq = True  # as the class has them; `pprint` asks
    for each in (name,) if name in _METHODS else _FACTS:
        setattr(cls, each, getattr(twin, each))


def _field(_kind: str, default: object, kw_only: bool) -> Any:
    if not isinstance(default, dataclasses.Field):
        return dataclasses.field(default=default, kw_only=kw_only)
    if kw_only:
        default.kw_only = True
    return default


def _said(cls: type[Any]) -> Iterator[tuple[str, _Said]]:
    """Read the fields that a class itself names; annotations are text, in modules that say so from `__future__`."""
    kw_only = False
    for name, kind in cls.__annotations__.items():
        if kind == "KW_ONLY":
            kw_only = True
        elif not kind.startswith("ClassVar"):
            yield name, (kind, cls.__dict__.get(name, dataclasses.MISSING), kw_only)


def _refuse_set(self: Any, name: str, value: object) -> None:
    if _is_frozen(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _refuse_delete(self: Any, name: str) -> None:
    if _is_frozen(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


def _is_frozen(self: Any, name: str) -> bool:
    """Say yes but for what a user's plain subclass adds to its objects, which the standard decorator lets it."""
    return "__frozen__" in type(self).__dict__ or name in self.__frozen__


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


def _replaced(self: Any, /, **changes: Any) -> Any:
    return dataclasses.replace(self, **changes)


_ALIKE = {
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
    "__getstate__": _state,
    "__setstate__": _set_state,  # else to copy or unpickle would assign
    "__replace__": _replaced,  # what Python 3.13 calls in `copy.replace`
}


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, slots: bool) -> Callable[[type[Any]], type[Any]]:
        """Make a frozen class with slots; both are said where it is used, as readers know it."""
        assert frozen and slots

        def made(cls: type[Any]) -> type[Any]:
            """Make the class anew: one that is there cannot be given slots."""
            own, inherited = dict(_said(cls)), getattr(cls, "__frozen__", {})
            inside = {name: _Later() for name in (*_METHODS, *_FACTS)} | _ALIKE | cls.__dict__
            for name in (*own, "__dict__", "__weakref__"):
                inside.pop(name, None)
            inside["__slots__"] = tuple(name for name in own if name not in inherited)
            inside["__frozen__"] = inherited | own
            inside["__home__"] = cls.__module__  # where its annotations mean something, whatever it is said to be from
            if not inside["__frozen__"]:
                del inside["__init__"]  # any object's will do, and need not be written: `Stop()` is made at import
            return type(cls)(cls.__name__, cls.__bases__, inside)

        return made
