"""What are operations of the user's own, as data? An object with state, or a function over the stream.

A plan holds what makes them, never what they keep: each run makes its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from functools import partial
from inspect import isgeneratorfunction
from typing import Any, ClassVar, Protocol, TypeVar

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async, yields_async
from .operations import FullOfKeys, Operation, WithFunction, by_key, check_keys

_USE = "Use a class with a method push(item), or a callable without arguments that returns such an object."


T_contra = TypeVar("T_contra", contravariant=True)
U_co = TypeVar("U_co", covariant=True)


class Stateful(Protocol[T_contra, U_co]):
    """An operation with state, for `Pipeline.stateful`, which says what its other, optional methods are."""

    def push(self, item: T_contra, /) -> Iterable[U_co]:
        """Take an item; return the values that leave now."""


@dataclass(frozen=True, slots=True)
class WithState(Operation):
    """What an object of the user's gives for each item; `make` makes one for each run."""

    verb: ClassVar[str] = "stateful"
    make: AnyFunction = field(hash=False)  # an object that is called may have no hash
    holds: int
    key: AnyFunction | None = field(default=None, hash=False)
    max_keys: int | None = None
    full: FullOfKeys = "oldest"
    acts_at_times: bool | None = None
    """Whether the object may act when no item comes; None: `make` shows it."""

    def __post_init__(self) -> None:
        _check_make(self.method, self.make)
        Operation.__post_init__(self)
        checks.integer(self.method, "holds", self.holds, at_least=0)
        check_keys(self.method, self.key, self.max_keys, self.full)
        if self.acts_at_times is None:  # what an unknown callable makes is only seen in a run
            made = _known(self.make)
            object.__setattr__(self, "acts_at_times", made is None or hasattr(made, "due"))

    @property
    def needs_stage(self) -> bool:
        return self.is_timed  # a clock must be watched while the input is silent

    @property
    def is_timed(self) -> bool:
        return self.acts_at_times is True

    @property
    def workers(self) -> int:
        return 0  # it makes no calls that wait

    @property
    def keeps(self) -> int:
        return self.holds * (self.max_keys or 1)

    @property
    def waits_for_more(self) -> bool:
        return self.holds > 0

    @property
    def holds_back(self) -> bool:
        return True  # what one item became leaves one by one

    def describe(self) -> str:
        shown = function_name(self.make)
        alias = "" if self.name.partition("#")[0] == shown else f" as {self.name}"
        return f"{self.verb} {shown}{alias}{_holding(self.holds)}{by_key(self.key, self.max_keys, self.full)}"


@dataclass(frozen=True, slots=True)
class Through(WithFunction):
    """The items that an async generator function gives, which takes the stream itself."""

    verb: ClassVar[str] = "through"
    holds: int

    def __post_init__(self) -> None:
        checks.callable_(self.method, "fn", self.fn)
        if is_async(self.fn) or isgeneratorfunction(self.fn):
            waits = "Use yield in it; map and flat_map take an async function."
            use = waits if is_async(self.fn) else "Use `async def`."
            raise checks.refuse(TypeError, self.method, "fn", "be an async generator function", self.fn, use)
        Operation.__post_init__(self)
        checks.integer(self.method, "holds", self.holds, at_least=0)

    @property
    def needs_stage(self) -> bool:
        return True

    @property
    def workers(self) -> int:
        return 0  # it may take the next item before it gives anything

    @property
    def keeps(self) -> int:
        return self.holds + 1  # the one that it took last

    @property
    def waits_for_more(self) -> bool:
        return self.holds > 0

    def describe(self) -> str:
        return f"{WithFunction.describe(self).removeprefix('async ')}{_holding(self.holds)}"


def _holding(holds: int) -> str:
    return f", holding at most {holds}" if holds else ""


def _check_make(where: str, make: Any) -> None:
    """Refuse what cannot make an object with a method push, as far as can be seen without making one."""
    if not callable(make):
        raise checks.refuse(TypeError, where, "make", "be callable", make, _USE)
    if is_async(make) or yields_async(make):
        raise checks.refuse(TypeError, where, "make", "be sync", make, _USE)
    made = _known(make)
    if made is None:
        return
    if not callable(getattr(made, "push", None)):
        raise checks.refuse(TypeError, where, "make", "make an object with a method push(item)", make, _USE)
    for method in ("push", "flush", "held", "due", "tick"):
        fn = getattr(made, method, None)
        if fn is None:
            continue
        if is_async(fn) or yields_async(fn):
            use = "Use .through(fn) for what waits."
            raise TypeError(f"{where}: {method} of {function_name(make)} must be sync\n{use}")
        if not callable(fn) and not hasattr(type(fn), "__get__"):
            raise checks.refuse(TypeError, where, f"{method} of {function_name(make)}", "be a method", fn)
    if hasattr(made, "due") != hasattr(made, "tick"):
        raise TypeError(f"{where}: {function_name(make)} must have both due and tick, or none of them")


def _known(make: AnyFunction) -> type | None:
    """Return the class of what a callable makes, if that can be told without a call; else None.

    A class makes its instances; an object that has a method push itself makes others like it (a codec does).
    """
    while isinstance(make, partial):
        make = make.func
    if isinstance(make, type):
        return make
    return type(make) if hasattr(type(make), "push") else None
