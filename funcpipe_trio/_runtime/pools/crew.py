"""The workers of a pool: which are there, which wait, and which comes when there is something to do?

Workers are started one by one as work comes, and live until the pool ends. A waiting worker is woken before another is
started; the one that began to wait last is woken first. A crew decides nothing about items: the pool says when a worker
must come, and what it does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar

import trio

from ..._sansio.usage import Usage
from ..calls.own_context import OwnContext
from ..core.call_context import CallContext
from ..core.parking import WOKEN, Parking
from ..core.signals import NO_ITEM
from ..core.step_counters import StepCounters
from ..core.time_limit import TimeLimit
from ..core.turn import Turn
from ..stages.chain import Chain


class Worker:
    """One task of a pool, and the item in its hands."""

    __slots__ = (
        "context",
        "item",
        "limit",
        "number",
        "parking",
        "position",
        "refusal",
        "scope",
        "since",
        "task",
        "turn",
        "variables",
    )

    def __init__(
        self, counters: StepCounters, seconds: float, give_up: Callable[[Worker, object], trio.lowlevel.Abort]
    ) -> None:
        self.limit: TimeLimit = TimeLimit(0.0, is_kept=True)  # of its calls, if the step has one; stays open between
        self.context: CallContext = CallContext(counters, kept_limit=self.limit)  # for the policies of the step
        self.variables: OwnContext  # the context variables that each of its calls begins with; made in its task
        self.scope: trio.CancelScope = trio.CancelScope()  # around all its work; ends that when it is no longer needed
        self.turn: Turn = Turn(seconds)  # how long it may go on; it counts items
        self.item: Any = NO_ITEM  # in its hands; discarded if the worker ends
        self.since: float = 0.0  # when it could take its item up: it began, or its last call or wait ended
        self.number: int = 0  # of its item in the stream, which errors name
        self.position: int = 0  # of its item in the order of the results
        self.refusal: Exception | None = None  # what a key function raised at the item, handled instead of a call
        self.parking: Parking = Parking(partial(give_up, self))  # what it waits by; made once, because that is cheaper
        self.task: trio.lowlevel.Task | None = None  # to be woken; set when it first parks


class Crew:
    """Workers, of which those that wait can be called in."""

    usage_of: ClassVar[type[Usage]] = Usage

    def __init__(
        self, chain: Chain, size: int, work: Callable[[Worker], Awaitable[None]], counters: StepCounters
    ) -> None:
        self.size = size  # places: so many calls at once
        self.usage: Usage = self.usage_of(chain.host.state_times)  # how many of its places are in use, over time
        self.workers: list[Worker] = []  # all that were started, and have not ended
        self.parked: list[Worker] = []  # those that wait for an item or room; the last is woken first
        self.coming: int = 0  # workers with empty hands that were started or woken, and have not run since
        self._chain = chain  # its run, its name and its clock
        self._work = work  # what a worker does until the pool ends
        self._counters = counters  # what the policies of the step count

    def begin(self) -> None:
        """Start the first worker."""
        self.usage.begin(self._chain.began, self.size)
        self._employ()

    @property
    def can_come(self) -> bool:
        """Whether a worker could be called in."""
        return bool(self.parked) or len(self.workers) < self.size

    def call_in(self) -> bool:
        """Wake or start one more worker; return whether one comes."""
        if self.parked:
            self.wake()
            return True
        if self.can_come:
            self._employ()
            return True
        return False

    def _employ(self) -> None:
        worker = Worker(self._counters, self._chain.host.turn_seconds, self._give_up_waiting)
        self.workers.append(worker)
        worker.since = self._chain.now()
        self.usage.hire(worker.since)
        self.coming += 1
        self._chain.host.start_task(lambda: self._work(worker), self._chain.name)

    def wake(self) -> None:
        """Wake a worker that waits, if there is one."""
        if self.parked:
            worker = self.parked.pop()
            assert worker.task is not None
            self.coming += worker.item is NO_ITEM
            trio.lowlevel.reschedule(worker.task, WOKEN)

    async def park(self, worker: Worker, *, starved: bool, stalled: bool) -> None:
        """Wait, in the worker's task, until it is woken: for something to take (`starved`), or for room.

        Args:
          worker: the one whose task this is.
          starved: whether it waits for something to take.
          stalled: whether waiting workers could do nothing, because earlier items are not done.
        """
        worker.task = trio.lowlevel.current_task()
        self.parked.append(worker)
        now = self._chain.now()
        self.usage.park(now, starved)
        if stalled is not self.usage.is_stalled:
            self.usage.stall(now, stalled)
        try:
            await worker.parking
        finally:
            self.coming -= worker.item is NO_ITEM
            worker.turn.begin()
            worker.since = self._chain.now()
            self.usage.unpark(worker.since, starved)

    def _give_up_waiting(self, worker: Worker, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.parked.remove(worker)
        self.coming += worker.item is NO_ITEM  # until it runs, as if it were woken
        return trio.lowlevel.Abort.SUCCEEDED

    def dismiss(self, worker: Worker) -> None:
        """Remove a worker whose task ends."""
        self.workers.remove(worker)
        self.usage.dismiss(self._chain.now())
        del worker.parking  # otherwise a reference cycle
