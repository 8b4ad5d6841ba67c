"""What is done to failures on their way, in place of an empty stream, and at its end, as data?

The rule: a failure that goes on is an ordinary value of the stream, a `Failure` in the place of its item. So what
concerns only some values is a `Map` that is called with those, and lets the others pass in their places.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name
from .operations import Map, Operation


@dataclass(frozen=True, slots=True)
class MapSome(Map):
    """A `Map` of the failures, or of all other values; what it does not concern passes in its place, untouched."""

    verb: ClassVar[str] = ""
    of_failures: ClassVar[bool]
    """Whether it is called with failures; otherwise with all other values."""


@dataclass(frozen=True, slots=True)
class OnOk(MapSome):
    """Each item that is no `Failure` becomes the result of the function."""

    verb: ClassVar[str] = "on_ok"
    of_failures: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Recover(MapSome):
    """Each `Failure` becomes the result of the function."""

    verb: ClassVar[str] = "recover"
    of_failures: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class OrElse(Operation):
    """If the stream ends without an item, the pipeline that the function returns takes its place."""

    verb: ClassVar[str] = "or_else"
    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        checks.sync_callable(self.method, "make_pipeline", self.fn)
        Operation.__post_init__(self)

    @property
    def needs_stage(self) -> bool:
        return True  # it runs the other pipeline

    @property
    def workers(self) -> int:
        return 0  # a result of the other pipeline is taken when there is room for it

    def describe(self) -> str:
        shown = function_name(self.fn)
        alias = "" if self.name.partition("#")[0] == shown else f" as {self.name}"
        return f"or_else the pipeline of {shown}{alias}, if nothing came"
