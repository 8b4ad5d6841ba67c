"""What happens to an item whose call failed for good? The stream ends, or continues without the item."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any, Generic, TypeVar, final

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import function_name

__all__ = ["Divert", "Emit", "Failure", "OnError", "Skip", "Stop"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure(Generic[T]):
    """An item whose call failed, with the error; `OnError.emit` puts it in the item's place, `divert` passes it on.

    In a merge it stands for an input that failed.
    """

    item: T = field(repr=False)  # it may hold secrets, or be endless
    """The item as the stage received it; None for an input."""
    error: Exception
    """The error itself, with notes that say where it was raised and after how many attempts."""
    stage: str
    """Name of the stage; of an input of a merge its key, as text."""
    attempts: int
    """How many times the call was tried; 0 for an input, and for an item that was never tried."""


class OnError:
    """What to do with an item whose call failed (after its retries): `stop`, `skip`, `emit` or `divert`."""

    __slots__ = ()

    def describe(self) -> str:
        """One-line description."""
        raise NotImplementedError

    @staticmethod
    def stop() -> Stop:
        """End the stream: what is before the item is delivered, then its error is raised. This is the default."""
        return Stop()

    @staticmethod
    def skip(max_failures: int | None = None, max_ratio: float | None = None, min_items: int = 100) -> Skip:
        """Continue without the item, which counts as failed. Too many such items end the stream.

        The failure that exceeds a limit is raised, with a note that names the limit and the counts. Limits count the
        items in the order in which they leave the stage, so with ``ordered=True`` the outcome depends on the items
        alone.

        Args:
          max_failures: items that may fail, an int >= 0; None: any number.
          max_ratio: fraction of the items that may fail, 0 to 1; None: any.
          min_items: items that must have left the stage before the ratio counts, an int >= 1.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if an argument is out of range.
        """
        return Skip(max_failures, max_ratio, min_items)

    @staticmethod
    def emit() -> Emit:
        """Put a `Failure` in the item's place; it continues as a value of the stream (and counts as one)."""
        return Emit()

    @staticmethod
    def divert(step: Callable[[Failure[Any]], Awaitable[object]]) -> Divert:
        """Pass a `Failure` to a step (dead letters) and continue without the item, which counts as failed.

        The step takes the place of the call, so it is within the same `concurrency`. An error of the step ends the
        stream at the item's place.

        Args:
          step: a `Step`, or an async function.

        Raises:
          TypeError: if it is neither.
        """
        return Divert(step)


@final
@dataclass(frozen=True, slots=True)
class Stop(OnError):
    """See `OnError.stop`."""

    def describe(self) -> str:
        """One-line description."""
        return "stop"


@final
@dataclass(frozen=True, slots=True)
class Skip(OnError):
    """See `OnError.skip`."""

    max_failures: int | None = None
    max_ratio: float | None = None
    min_items: int = 100

    def __post_init__(self) -> None:
        if self.max_failures is not None:
            checks.integer("OnError.skip", "max_failures", self.max_failures, at_least=0)
        if self.max_ratio is not None:
            checks.number("OnError.skip", "max_ratio", self.max_ratio, at_least=0, at_most=1)
        checks.integer("OnError.skip", "min_items", self.min_items, at_least=1)

    def describe(self) -> str:
        """One-line description."""
        limits = [] if self.max_failures is None else [f"at most {self.max_failures}"]
        if self.max_ratio is not None:
            limits.append(f"at most {self.max_ratio:.1%} from {self.min_items} items on")
        return ", ".join(["skip", *limits])


@final
@dataclass(frozen=True, slots=True)
class Emit(OnError):
    """See `OnError.emit`."""

    def describe(self) -> str:
        """One-line description."""
        return "emit a Failure in its place"


@final
@dataclass(frozen=True, slots=True)
class Divert(OnError):
    """See `OnError.divert`."""

    step: Callable[[Failure[Any]], Awaitable[object]] = field(hash=False)

    def __post_init__(self) -> None:
        checks.async_callable("OnError.divert", "step", self.step, "be a Step or an async function")

    def describe(self) -> str:
        """One-line description."""
        return f"divert to {function_name(self.step)}"
