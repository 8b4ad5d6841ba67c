"""One stage of a run: how is it driven, and what does it wait for?

A stage is one task that drives a `Chain`: it lets the chain move a burst of values, and parks while the chain's outlet
has no room or its inlet has nothing. Its neighbours are links and other inlets; what they call (`on_input`, `on_room`,
`stop`) is sync and wakes the task. A task that has not waited lets others run when its turn is over.

Whatever ends the task, it leaves through `leave`, which ends the chain.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Any

import trio

from ..._sansio.blame import GONE, NO_INPUT, NO_ROOM
from ..core.parking import WOKEN, Parking
from ..core.protocols import Inlet, worth_a_pull
from ..core.step_counters import StepCounters
from ..core.turn import BURST
from .chain import FULL, OVER, STARVED, TURN_OVER, BurstEnd, Chain

_NEVER = math.inf


class Stage:
    """A sync stage, and the base class of others.

    For subclasses: `main` is the task and `work` what it does; `burst`, `wait_input`, `wait_room` and `breathe` are the
    steps of `drive`; `held` hands out what the stage itself holds; `leave` ends it. Each override does its own part and
    calls the one here.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        kind: str = "sync",
        counters: StepCounters | None = None,
        divert_counters: StepCounters | None = None,
    ) -> None:
        self.chain = chain  # what it drives
        self.feed: Inlet = chain.inlet  # what its wait for input is for
        self.kind = kind  # as reports call it
        self.counters = counters  # what the policies of its step count, if it has one
        self.divert_counters = divert_counters  # the same for the step that its failures are diverted to
        self.started: bool = False  # a later input of a concat is started in its turn
        self.left: float | None = None  # when it ended; None before
        self.waited_input: float = 0.0  # seconds in which it had nothing to take, except the wait that is not over
        self.waited_room: float = 0.0  # seconds in which it had no room, likewise
        self.scope: trio.CancelScope | None = None
        """The cancel scope of a stage that also awaits something other than its neighbours (a source, a step). Other
        stages are woken and check `stopped`: that saves the 10 us that a scope costs."""
        self.parked_for: BurstEnd | None = None  # why its task is parked, which says what wakes it; None otherwise
        self._task: trio.lowlevel.Task | None = None  # its own, to be woken
        self._parking = Parking(self._unpark)  # what the task waits by; made once, because that is cheaper
        self._waits_for = STARVED  # what its wait, or its last one, is counted as
        self._since = _NEVER  # when its wait began; `_NEVER` while it does not wait
        self._passed = 0  # values that had gone out when it last let others run
        self._read, self._ahead = chain.host.stopwatch  # by which its waits are timed
        self._state_times = chain.host.state_times  # is told when it begins to wait, and when it goes on
        self.shift: int = self._state_times.allot(2, self._field)  # where its field is there
        self._no_input, self._no_room, self._gone = (each << self.shift for each in (NO_INPUT, NO_ROOM, GONE))
        """What that field is while it waits for either, or is not at work; 0 while it is."""
        self._meets = False
        """Whether what it takes from hands over only what it waits for (a `buffer(0)`), so that it must say so."""
        self._waits_for_item = False  # it has said so, and has not taken one since
        chain.inlet.receiver = self
        chain.host.register(self)

    # ---- what its neighbours call: sync, at any time

    def start(self) -> None:
        self.chain.began, self.started = self.chain.now(), True
        self._meets = getattr(self.upstream, "capacity", 1) == 0
        self._waits_for_item = True  # it has room, and takes what is there when it first runs
        self._state_times.change(self.chain.began, -self._gone)
        self.chain.host.start_task(self.main, self.chain.name)

    def on_input(self) -> None:
        if self.parked_for is STARVED and worth_a_pull(self.feed):
            self.wake()

    def wants_input(self) -> bool:
        """Whether it waits for an item, so that it would take one at once."""
        return self._waits_for_item

    def on_room(self) -> bool:
        woken = self.parked_for is FULL
        if woken:
            self.wake()
        return woken

    def stop(self, reason: str) -> bool:
        if self.chain.stopped is not None:
            return False
        self.chain.stopped = reason
        if self.scope is not None:
            self.scope.cancel()
        if self.parked_for is not None:  # it has no scope, or a source holds a shielded one open
            self.wake()
        return True

    def on_drain(self) -> None:
        """Called when the sources are about to be told to take no more."""

    def on_pause(self) -> None:
        """Called when the sources must take nothing for a time."""

    def on_resume(self) -> None:
        """Called when the sources go on."""

    # ---- what reports read

    @property
    def name(self) -> str:
        return self.chain.name

    @property
    def upstream(self) -> Inlet:
        return self.feed

    @property
    def received(self) -> int:
        """How many items it took."""
        return self.feed.taken

    @property
    def dropped(self) -> int:
        """How many items it dropped itself."""
        return self.chain.dropped

    def _field(self) -> int:
        """Return what its field in the times of all parts is now."""
        if not self.started or self.left is not None:
            return GONE
        if self._since == _NEVER:
            return 0
        return (self._no_room if self._waits_for is FULL else self._no_input) >> self.shift

    def waits_for(self) -> str | None:
        """Return what it waits for now; None if it runs, or is not at work."""
        if self.parked_for is STARVED:
            return "input"
        return f"room behind {self.name}" if self.parked_for is FULL else None

    def waited(self, now: float) -> tuple[float, float]:
        """How many seconds it waited for input, and for room, up to now, including the wait that is not over."""
        waits = max(0.0, now - self._ahead - self._since)
        if self._waits_for is FULL:
            return self.waited_input, self.waited_room + waits
        return self.waited_input + waits, self.waited_room

    # ---- the task

    async def main(self) -> None:
        chain = self.chain
        try:
            await self.work()
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            chain.close()  # a generator may hold the very scope that is cancelled
            if not chain.fails_by(error):
                raise
        finally:
            self.leave()

    async def work(self) -> None:
        self.begin()
        await self.drive()

    def begin(self) -> None:
        """Set up what the task needs; called in it."""
        self._task = trio.lowlevel.current_task()
        self._waits_for_item = False
        self.chain.begin()

    async def drive(self) -> None:
        """Move values until no more will come, or they are no longer needed."""
        chain, outlet, turn = self.chain, self.chain.outlet, self.chain.turn
        while chain.stopped is None:
            room = outlet.room()
            if not room:
                await self.wait_room()
                continue
            if turn.left < BURST and turn.is_over():  # bursts that found no room at the end make one turn together:
                await self.breathe()  # a partition has room again at once
                continue
            most = outlet.burst_room()
            end = self.burst(room if room < most else most)
            if end is OVER:
                return
            if end is STARVED:
                if chain.stopped is None:  # a user's function may have stopped the run from within the burst
                    await self.wait_input()
            elif end is TURN_OVER:
                await self.breathe()
            elif most < room:  # full, but it takes more, and drops: the receiver gets a turn first
                await self.breathe()
                await trio.lowlevel.checkpoint()  # trio runs a batch in any order: it may be behind this task

    def burst(self, room: int) -> BurstEnd:
        """Let the chain move values."""
        return self.chain.burst(room)

    def held(self) -> list[Any]:
        """Hand out, and forget, what the stage and its operations hold."""
        return self.chain.held()

    def leave(self) -> None:
        """End the stage, for whatever reason."""
        self.left = self.chain.now()
        self._state_times.change(self.left, self._gone)
        self.chain.end(self.held)

    # ---- waiting

    def wait_input(self) -> Awaitable[None]:
        """Wait until a pull may find something."""
        return self.park(STARVED)  # not awaited here: a coroutine less for each wait

    def wait_room(self) -> Awaitable[None]:
        """Wait until the outlet has room."""
        return self.park(FULL)

    async def breathe(self) -> None:
        """Let others run, in the middle of a turn."""
        outlet = self.chain.outlet
        if outlet.passed == self._passed:
            self.chain.turn_over()  # or a stage that filters everything out would hold up its neighbours
        else:
            outlet.turn_continues()  # or a fan-in would choose without it, once in 64 items
        self._passed = outlet.passed
        await trio.lowlevel.checkpoint()
        self.chain.turn.begin()

    async def park(self, reason: BurstEnd) -> None:
        """Wait until a neighbour calls; not if this stage was stopped, or got what it waits for, in this turn."""
        chain, turn = self.chain, self.chain.turn
        chain.turn_over()  # first: it may stop this stage, or give it room, and nothing would wake it then
        if chain.stopped is not None or (chain.outlet.room() if reason is FULL else worth_a_pull(self.feed)):
            turn.end()  # instead of a wait: others get their turn before the next burst
            return
        if reason is FULL:
            chain.inlet.release(parking=True)
            chain.outlet.wants_room = True
        if self._meets and self._meet(reason):
            turn.end()
            return
        self.parked_for = self._waits_for = reason
        self._since = now = self._read()
        times = self._state_times
        if now > times.rests_until:
            times.change(now + self._ahead, self._no_room if reason is FULL else self._no_input)
        try:
            await self._parking
        finally:
            self._waits_for_item = False
            now = self._read()
            waited, self._since = now - self._since, _NEVER
            if reason is FULL:
                self.waited_room += waited
            else:
                self.waited_input += waited
            if now > times.rests_until:
                times.change(now + self._ahead, -(self._no_room if reason is FULL else self._no_input))
            turn.left, turn.ends_at = BURST, now + turn.seconds  # as `begin`, without another look at the clock

    def may_take(self, reason: BurstEnd) -> bool:
        """Whether it would take an item while it is parked for a reason."""
        return reason is STARVED

    def _meet(self, reason: BurstEnd) -> bool:
        """Say that it waits for an item, if it does; return whether one came at once."""
        self._waits_for_item = self.may_take(reason)
        if self._waits_for_item:
            self.upstream.release(parking=True)
            self._waits_for_item = not worth_a_pull(self.upstream)
            return not self._waits_for_item
        return False

    def _unpark(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.parked_for = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Wake the task, which is parked."""
        if self._task is not None:
            self.parked_for = None
            trio.lowlevel.reschedule(self._task, WOKEN)
