"""What is done to failures on their way, in place of an empty stream, and at its end, as data?

The rule: a failure that goes on is an ordinary value of the stream, a `Failure` in the place of its item. So what
concerns only some values is a `Map` that is called with those, and lets the others pass in their places.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name
from .operations import Map, Operation, check_function
from .steps import step_of

Ending = Literal["completed", "drained", "failed", "stopped"]
"""How a stream ended at one point; ``stopped``: before its end, by what is behind that point or outside of the run."""


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
class AtEnd(Operation):
    """An operation that passes items on, and calls a function at the end of the stream."""

    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash

    @property
    def needs_stage(self) -> bool:
        return True  # the function may wait, or what it returns

    @property
    def workers(self) -> int:
        return 0  # it holds no item

    def describe(self) -> str:
        shown = function_name(self.fn)
        return f"{self.verb} {shown}" + ("" if self.name.partition("#")[0] == shown else f" as {self.name}")


@dataclass(frozen=True, slots=True)
class OrElse(AtEnd):
    """If the stream ends without an item, the pipeline that the function returns takes its place."""

    verb: ClassVar[str] = "or_else"

    def __post_init__(self) -> None:
        checks.sync_callable(self.method, "make_pipeline", self.fn)
        Operation.__post_init__(self)


@dataclass(frozen=True, slots=True)
class OnEnd(AtEnd):
    """The function is told how the stream ended here; items continue unchanged."""

    verb: ClassVar[str] = "on_end"

    @property
    def is_one_to_one(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if step_of(self.fn) is not None:
            rule, use = "be a function of an outcome, not of an item", "Use an async function that awaits it."
            raise checks.refuse(TypeError, self.method, "fn", rule, self.fn, use)
        check_function(self.method, self.fn)
        Operation.__post_init__(self)
