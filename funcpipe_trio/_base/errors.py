"""The errors of this package; everything else is trio's own, or the user's, and passes unchanged."""

from __future__ import annotations


class FuncpipeError(Exception):
    """The base of every error that this package itself raises."""


class PlanError(FuncpipeError, ValueError):
    """A pipeline cannot work as described; raised before any task starts.

    One error lists all the problems that were found, a line each.

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
    """The run was stopped by ``run.abort()``, or by a cancellation, before its end; what it held was discarded."""


class BufferOverflow(FuncpipeError):
    """A buffer with ``overflow="fail"``, or the queue of an item's key, was full when one more item came."""


class CircuitOpen(FuncpipeError):
    """A call was not made because its circuit breaker is open.

    Args:
      message: what to say.
      retry_after: seconds after which to try again, or None.
    """

    retry_after: float | None
    """Seconds after which to try again; None: when the probe that is under way has an answer."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MisuseError(TypeError):
    """A function gave something to await where nobody awaits it, or nothing of the kind where it is awaited.

    A mistake in the program, so no policy meets it: it is not tried again, skipped, or put in an item's place.
    """


class WorkerDied(FuncpipeError):
    """The process or executor that ran a call is gone; nobody knows how far the call came. Its cause may say more."""


class WorkerError(FuncpipeError):
    """What stands for an error of a worker process that cannot be pickled, or not be made again from its pickle.

    Its notes have the worker's traceback.

    Args:
      type_name: the type of the error, with its module.
      text: what the error said.
    """

    type_name: str
    """The type of the error, with its module unless that is the main one."""
    text: str
    """What the error said, shortened if it is very long."""

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}"


class StateError(FuncpipeError, RuntimeError):
    """A call does not fit the state of the object; nothing was changed by it."""
