"""The errors of this package; all others are trio's or the user's and pass through unchanged."""

from __future__ import annotations


class FuncpipeError(Exception):
    """Base class of the errors that this package itself raises."""


class PlanError(FuncpipeError, ValueError):
    """A pipeline cannot work as described; raised before any task starts.

    One error lists all the problems that were found, one per line.

    Args:
      problems: what is wrong, one sentence each; at least one.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one sentence each."""
        return tuple(self.args)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Aborted(FuncpipeError):
    """The run was stopped early by ``run.abort()`` or a cancellation; the items it held were discarded."""


class BufferOverflow(FuncpipeError):
    """A buffer with ``overflow="fail"``, or the queue of an item's key, was full when another item arrived."""


class TooManyKeys(FuncpipeError):
    """An item of a new key came while as many keys as `max_keys` allows were in use, with ``full="fail"``.

    Args:
      max_keys: how many keys may be in use.
      what: what each of them has, as in ``an open batch``.
    """

    max_keys: int
    """How many keys may be in use."""

    def __init__(self, max_keys: int, what: str) -> None:
        super().__init__(max_keys, what)
        self.max_keys = max_keys

    def __str__(self) -> str:
        keys = "1 key has" if self.max_keys == 1 else f"{self.max_keys} keys have"
        said = f"{keys} {self.args[1]}, which is max_keys, and another key came"
        return f"{said}\nUse a larger max_keys, or full='oldest'."


class CircuitOpen(FuncpipeError):
    """A call was not made because its circuit breaker is open.

    Args:
      message: the text of the error.
      retry_after: seconds after which to try again, or None.
    """

    retry_after: float | None
    """Seconds after which to try again; None: when the probe that is in progress has finished."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MisuseError(TypeError):
    """A function returned an awaitable where nothing awaits it, or something else where an awaitable was needed.

    This is a mistake in the program, so no policy handles it: it is not retried or hedged, no fallback replaces it, and
    it is not skipped, emitted or diverted.
    """


class WorkerDied(FuncpipeError):
    """The process or executor that ran a call is gone; how far the call got is unknown. Its cause may say more."""


class WorkerError(FuncpipeError):
    """Replaces an error of a worker process that cannot be pickled or unpickled.

    Its notes contain the worker's traceback.

    Args:
      type_name: the type of the error, with its module.
      text: the text of the error.
    """

    type_name: str
    """The type of the error, with its module unless that is ``__main__``."""
    text: str
    """The text of the error, shortened if it is very long."""

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"


class StateError(FuncpipeError, RuntimeError):
    """A call does not fit the state of the object; it changed nothing.

    This is a mistake in the program, so no policy handles it, as with a `MisuseError`.
    """


def is_misuse(error: BaseException) -> bool:
    """Return whether an error is a mistake in the program, which no policy handles: it is no failure of an item.

    A group is one if there is one in it: with the group, it would be hidden.
    """
    waiting = [error]  # a loop, since groups may be nested deeper than the stack
    while waiting:
        part = waiting.pop()
        if isinstance(part, MisuseError | StateError):
            return True
        if isinstance(part, BaseExceptionGroup):
            waiting += part.exceptions
    return False
