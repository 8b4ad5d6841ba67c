"""Worker processes, which anyio starts and keeps: which of its ways must a call, and who cancels it, not meet?

* A worker that meets an error while it loads its orders loses step, and each later answer goes to a wrong call. So its
  order is always the same one: to load bytes. That loads the item, too, and then makes the call (`Called`); an error in
  any of it is an answer like others.
* A start that is cancelled leaves a process behind, and with a timeout shorter than a start no attempt would ever come
  to its call. So a start is shielded, and a call is made only of a worker that is there.
* A terminal sends Ctrl-C to the workers, too, where it would be the answer to whatever is called next. So they ignore
  it: the run decides what becomes of them.
* Ctrl-C in the task that waits for a worker is told as the worker's death. It is made Ctrl-C again.

What it does not do: limit anything. Idle workers belong to the trio run, and all its steps share them.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from typing import Any

import trio

from .._errors import WorkerDied
from ..policies._functions import AnyFunction, function_name

__all__ = ["Workers"]

START_LIMIT = 60.0
"""Seconds for a worker to start, in which it imports the main module."""

_idle: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("idle workers of funcpipe_trio", 0)
"""How many workers wait for an order in this trio run; the processes are anyio's."""


class Workers:
    """The worker processes of a trio run, as one step sees them."""

    def __init__(self) -> None:
        import anyio.to_process  # an extra: nobody else pays for it

        self._run = anyio.to_process.run_sync
        self._broken = anyio.BrokenWorkerProcess

    def order(self, fn: AnyFunction, item: Any) -> bytes:
        """Make the order of a call; raise what pickling raises."""
        return pickle.dumps(Called(fn, item), pickle.HIGHEST_PROTOCOL)

    async def have_idle(self, fn: AnyFunction) -> None:
        """Start a worker if none is idle; it may be ordered about in the step in which this returns.

        Cancellation: waits until the worker has started.
        """
        if not _idle.get():
            with trio.move_on_after(START_LIMIT, shield=True) as scope:
                await self._order(fn, signal.signal, signal.SIGINT, signal.SIG_IGN)
            if scope.cancelled_caught:
                raise WorkerDied(f"the worker process for {function_name(fn)} did not start in {START_LIMIT:g} s")
            _idle.set(_idle.get() + 1)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def call(self, fn: AnyFunction, order: bytes) -> Any:
        """Let the idle worker make a call, by its order.

        Cancellation: kills the worker.
        """
        _idle.set(_idle.get() - 1)
        is_idle = True
        try:
            return await self._order(fn, pickle.loads, order)
        except (WorkerDied, KeyboardInterrupt, trio.Cancelled):
            is_idle = False
            raise
        finally:
            _idle.set(_idle.get() + is_idle)

    async def _order(self, fn: AnyFunction, what: Callable[..., object], *arguments: Any) -> Any:
        try:
            return await self._run(what, *arguments, cancellable=True, limiter=_NO_LIMIT)
        except self._broken as error:
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise error.__cause__ from None
            raise WorkerDied(f"the worker process of {function_name(fn)} died") from error


class Called:
    """A call as a pickle: to load it makes the call. So a worker need not import this package."""

    def __init__(self, fn: AnyFunction, item: Any) -> None:
        self._call = fn, (item,)

    def __reduce__(self) -> Any:
        return self._call


class _NoLimit:
    """In the place of anyio's own limit, which is as many as there are cores, and a checkpoint."""

    async def __aenter__(self) -> None:
        """Go on."""

    async def __aexit__(self, *_error: object) -> None:
        """Go on."""


_NO_LIMIT: Any = _NoLimit()  # anyio takes what acts like a limiter, though its types do not say so
