"""How does a task park, and with what is it woken? As in trio, except that what trio makes for each wait is reused.

`trio.lowlevel.wait_task_rescheduled` is a coroutine that makes a message to the run loop, and `reschedule` makes the
outcome that it returns; for a task that parks ten thousand times, both are the same each time. Making them once saves a
fifth of the instructions of a hop at capacity 4, and an eighth at 16.

**This file depends on how trio does it**: that the message may be sent again (it is frozen, and the run loop reads
nothing of it but the abort function), and that what is sent back is an outcome, of which only `unwrap` is called. The
message is of trio's own type, taken from a coroutine that is only begun, so no private name is used. If a version of
trio sends a message that carries more than the abort function, each wait makes its own, as in trio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, final

import trio
from outcome import Outcome


@final
class _Woken(Outcome[None]):
    """The outcome None, which may be unwrapped more than once."""

    __slots__ = ()

    def unwrap(self) -> None:
        return None

    def send(self, gen: Generator[Any, None, object]) -> Any:
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[Any, None]) -> Any:
        return await agen.asend(None)


WOKEN: Final = _Woken()
"""For `trio.lowlevel.reschedule`: the outcome for a task that waits for no value."""


def _message_type() -> type[Any] | None:
    """Return the type of trio's message to the run loop; None if that carries more than the abort function."""

    def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
        raise NotImplementedError

    waiting = trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105  # only begun, for its message
    message = waiting.send(None)
    waiting.close()
    return type(message) if getattr(message, "__dict__", None) == {"abort_func": abort} else None


_MESSAGE: Final = _message_type()


def is_real(clock: trio.abc.Clock) -> bool:
    """Whether a clock is trio's own, which follows real time; trio does not export its type."""
    kind = type(clock)
    return kind.__name__ == "SystemClock" and kind.__module__.split(".")[0] == "trio"


@final
class Parking:
    """`trio.lowlevel.wait_task_rescheduled` with one abort function, which may be awaited any number of times.

    Checkpoint and cancellation: as for that function.
    """

    __slots__ = ("_abort", "_message")

    def __init__(self, abort: Callable[[object], trio.lowlevel.Abort]) -> None:
        self._abort = abort  # called by trio when the task is cancelled while it is parked
        # What is sent to the run loop at each wait; None: trio makes it.
        self._message = None if _MESSAGE is None else _MESSAGE(abort)

    def __await__(self) -> Generator[Any, Outcome[object], None]:
        if self._message is None:
            yield from trio.lowlevel.wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105
        else:
            (yield self._message).unwrap()
