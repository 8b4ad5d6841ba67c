"""What is done to failures on their way, and at the end of a stream, as data?

The rule: a failure that goes on is an ordinary value of the stream, a `Failure` in the place of its item. So what
concerns only some values is a `Map` that is called with those, and lets the others pass in their places.
"""

from __future__ import annotations

from typing import ClassVar

from .._base.frozen import dataclass
from .operations import Map


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
