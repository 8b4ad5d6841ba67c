"""`dataclass` for frozen values, at a thirtieth of the cost: when is its code generated?

The standard decorator reads the fields of a class, and generates and compiles its methods, when the class is created:
0.4 ms for each of our 80 classes, half of the import time of this package, though a program uses only some of them.
Here a class only gets its slots when it is created. Everything else is generated when it is first looked up, by the
standard decorator from a class with the same fields, and stays on the class from then on. The result is the same, only
later.

To a reader and a type checker it is `dataclasses.dataclass`. Fields, `replace`, pickling, matching, and subclasses made
by the standard decorator work as usual.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

_METHODS = ("__init__", "__repr__", "__eq__", "__hash__")
_FACTS = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")

_Said = tuple[str, object, bool]  # a field: its type, its default or what `field` returned, whether it is after KW_ONLY


class _Later:
    """Placeholder for an attribute that has not been looked up yet."""

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        _write(self._owner, self._name)
        written = self._owner.__dict__[self._name]  # not a subclass's override, which may have called `super()`
        return written.__get__(instance, owner) if self._name in _METHODS else written


def _write(cls: type[Any], name: str) -> None:
    """Generate one method, or `_FACTS`. Idempotent, since two threads may look up the same one at once."""
    said: dict[str, _Said] = cls.__frozen__
    inside = {each: _field(*what) for each, what in said.items()}
    inside |= {"__module__": cls.__home__, "__qualname__": cls.__qualname__}
    inside["__annotations__"] = {each: kind for each, (kind, _default, _kw_only) in said.items()}
    inside["__doc__"] = cls.__doc__  # otherwise one is made from the signature, which takes a quarter of the time
    if hasattr(cls, "__post_init__"):
        inside["__post_init__"] = None  # only that there is one: each object looks up its own
    is_comparison = name in ("__eq__", "__hash__")
    standard = dataclasses.dataclass(init=name == "__init__", repr=name == "__repr__", eq=is_comparison, frozen=True)
    twin: type[Any] = standard(type(cls.__name__, (), inside))
    params = twin.__dataclass_params__
    params.init = params.repr = params.eq = True  # true of the class, and `pprint` checks them
    for each in (name,) if name in _METHODS else _FACTS:
        setattr(cls, each, getattr(twin, each))


def _field(_kind: str, default: object, kw_only: bool) -> Any:
    if not isinstance(default, dataclasses.Field):
        return dataclasses.field(default=default, kw_only=kw_only)
    if kw_only:
        default.kw_only = True
    return default


def _said(cls: type[Any]) -> Iterator[tuple[str, _Said]]:
    """Yield the fields that the class itself defines; its annotations are strings (`from __future__`)."""
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
    """Whether `name` must not be assigned.

    A user's undecorated subclass may add attributes of its own, as with a standard frozen dataclass.
    """
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
    "__setstate__": _set_state,  # without it, copying and unpickling would assign
    "__replace__": _replaced,  # called by `copy.replace` of Python 3.13
}


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, slots: bool) -> Callable[[type[Any]], type[Any]]:
        """Make a frozen class with slots; callers pass both, as they would to the standard decorator."""
        assert frozen and slots

        def made(cls: type[Any]) -> type[Any]:
            """Create the class again: slots cannot be added to an existing one."""
            own, inherited = dict(_said(cls)), getattr(cls, "__frozen__", {})
            inside = {name: _Later() for name in (*_METHODS, *_FACTS)} | _ALIKE | cls.__dict__
            for name in (*own, "__dict__", "__weakref__"):
                inside.pop(name, None)
            inside["__slots__"] = tuple(name for name in own if name not in inherited)
            inside["__frozen__"] = inherited | own
            inside["__home__"] = cls.__module__  # where its annotations resolve, even after `publish`
            if not inside["__frozen__"]:
                del inside["__init__"]  # `object.__init__` will do and need not be generated: import makes a `Stop()`
            inside["__qualname__"] = cls.__qualname__  # or a class within another could not be pickled
            return type(cls)(cls.__name__, cls.__bases__, inside)

        return made
