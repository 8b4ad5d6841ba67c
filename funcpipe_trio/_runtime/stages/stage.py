"""One stage of a run: how is it driven, and what happens to its items when it fails, is stopped or is cancelled?

A stage pulls values through its *chain* (its inlet, and the generators of the operations fused into it) and appends
them to its outlet, in bursts: as many as the outlet has room for, at most 64 or 10 ms of them between two
checkpoints. It pulls only while the outlet has room, so a value goes from the inlet to the outlet within one turn and
nothing is in its hands at a checkpoint, but for what an operation holds on purpose (a batch not yet full, an item that
is still being expanded); those can be swept.

How a stage ends, always through `_leave`, in this order: the inlet is closed unless it was read to its end (so all
upstream stops at once), what is held is discarded with a reason, the end goes behind the items of the outlet.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from time import perf_counter
from typing import Any, NoReturn, TypeVar

import trio

from ..._base.errors import Aborted
from ..._base.shown import named, told
from ..core.attempt import Account
from ..core.failures import failure_of, is_cancellation, noted
from ..core.inlet import (
    BEHIND_FAILURE,
    CANCELLED,
    HELD,
    IDLE,
    NOT_NEEDED,
    NOTHING,
    Fault,
    Inlet,
    reason_behind,
    worth_a_pull,
)
from ..core.parking import AWAKE, Parking
from ..core.protocols import Host, Outlet
from ..core.turn import BURST
from ..operations.fused import FusedOperation

T = TypeVar("T")

_NEVER = math.inf


class Pause(Enum):
    """Why a burst ended; its members are bound to names of this module, as those of `State` are."""

    FULL = "the outlet has no room"
    STARVED = "the inlet has nothing now"
    SLICE_OVER = "others must run"
    OVER = "no more values will come"


FULL, STARVED, SLICE_OVER, OVER = Pause


class Stage:
    """A sync stage: takes from an inlet, applies the fused operations, fills an outlet. Others build on it."""

    began: float
    """When its task was started; what is timed of it counts from there."""
    discarded: int
    """Items given up while it held them."""
    failed: int
    """Items at which user code raised, but for those that became a `Failure`."""
    left: float | None
    """When it ended; None before."""
    slice: float
    """Seconds of real time after which others have their turn."""
    now: Callable[[], float]
    """The clock of the run."""
    started: bool
    """Whether its task was started: a later input of a concat waits for its turn."""
    stopped: str | None
    """Why nobody needs it any more, which is the reason of what it gives up then; None while somebody does."""
    waited_input: float
    """Seconds in which it had nothing to take, but for the wait that is not over."""
    waited_room: float
    """Seconds in which it had no room, likewise."""

    kind = "sync"
    waits_its_own_way = False
    """Whether it waits for anything else than an item or room."""
    dropped = created = absorbed = 0  # beside what the fused operations count
    as_failures = 0
    """Items in whose place a policy put a `Failure`."""
    account: Account | None = None
    """What the policies of its step count, if it has one."""
    divert_account: Account | None = None
    """The same for the step that its failures are diverted to."""
    _parking: Parking
    """What it waits by, made once."""
    _scope: trio.CancelScope | None = None
    """Of one that also waits for others than its neighbours; the rest are woken, look, and save the scope's 10 us."""

    def __init__(
        self, host: Host, name: str, inlet: Inlet, outlet: Outlet, fused: Sequence[FusedOperation] = ()
    ) -> None:
        self.host = host  # the run, as far as a stage knows it
        self.slice = host.slice
        self.name = name  # as plans, reports and errors call it
        self.inlet = inlet  # where values come from
        self.outlet = outlet  # where they go
        self.fused = fused  # what is done with them in between, in this order
        self.failure: Fault | None = None  # what ended it, to go behind all that went out
        self.stopped = None
        self.failed = self.discarded = 0
        self._failures: Counter[str] | None = None  # what policies went on after; most stages have none
        self.waited_input = self.waited_room = 0.0
        self.began, self.left = 0.0, None
        self.started = False
        self._task: trio.lowlevel.Task | None = None  # its own, to be woken
        self._parked_for: Pause | None = None  # what would wake it, while it is parked
        self._waits_for = STARVED  # which account its wait goes to
        self._since = _NEVER  # or when it began to wait, while it does
        self._slice_end = 0.0  # when others must have their turn
        self._may_end = False  # whether an operation may end the stream by itself
        self._keepers: list[FusedOperation] = []  # the operations that may give more than one value for one
        self._has_raised = False  # the chain, in a pull: what befell it was not left behind
        self._spent = 0  # values since the last checkpoint, in bursts that found no room in the end
        self._passed = 0  # by the last breath
        self._streams: list[Iterator[Any]] = []  # the chain: a generator for the inlet, and one for each operation
        self.now = trio.lowlevel.current_clock().current_time  # half the time of `trio.current_time`, twice a trip
        inlet.receiver = self
        for operation in fused:
            operation.stage = self
        host.register(self)

    # ---- what its neighbours call: sync, at any time

    def start(self) -> None:
        self.began, self.started = self.now(), True
        self.host.start_task(self._main, self.name)

    def on_input(self) -> None:
        if self._parked_for is STARVED and worth_a_pull(self.inlet):
            self._wake()

    def on_room(self) -> bool:
        woken = self._parked_for is FULL
        if woken:
            self._wake()
        return woken

    def stop(self, reason: str) -> bool:
        if self.stopped is not None:
            return False
        self.stopped = reason
        if self._scope is not None:
            self._scope.cancel()
        if self._parked_for is not None:  # without a scope; or a source holds a shielded one open
            self._wake()
        return True

    def on_pause(self) -> None:
        """Hear that the sources are to take nothing for a time."""

    def on_resume(self) -> None:
        """Hear that they go on."""

    @property
    def failures(self) -> Counter[str]:
        """Errors that a policy dealt with, by the names of their types; made when asked for: most stages meet none."""
        if self._failures is None:
            self._failures = Counter()
        return self._failures

    @property
    def upstream(self) -> Inlet:
        return self.inlet

    @property
    def received(self) -> int:
        """How many items it took."""
        return self.inlet.taken

    @property
    def emitted(self) -> int:
        """How many values it handed on."""
        return self.outlet.passed

    def waited(self, now: float) -> tuple[float, float]:
        """How many seconds it waited for input, and for room, up to now, and in the wait that is not over."""
        waits = max(0.0, now - self._since)
        if self._waits_for is FULL:
            return self.waited_input, self.waited_room + waits
        return self.waited_input + waits, self.waited_room

    # ---- the task

    async def _main(self) -> None:
        try:
            await self._work()
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            for stream in reversed(self._streams):  # a generator may hold the very scope that is cancelled
                self.close_stream(stream)
            if not self._fails_by(error):
                self.stopped = self.stopped or CANCELLED
                raise
        finally:
            self._leave()

    async def _work(self) -> None:
        self._begin(self.inlet.items())
        await self._drive()

    async def _drive(self) -> None:
        """Move values until no more will come."""
        outlet, waits_its_own_way = self.outlet, self.waits_its_own_way
        while self.stopped is None:
            room = outlet.room()
            if room:
                if self._spent and self._is_slice_over():
                    await self._breathe()
                    continue
                turn = outlet.turn()
                pause = self._burst(room if room < turn else turn)
                if pause is FULL:
                    if turn < room:  # full, but it takes more, and drops: the receiver gets a turn before that
                        await self._breathe()
                        await trio.lowlevel.checkpoint()  # trio runs a batch in any order: it may be behind this task
                    continue
                if pause is OVER:
                    return
                if pause is SLICE_OVER:
                    await self._breathe()
                    continue
            if self.stopped is not None:  # from within the burst, by a user's function
                return  # type: ignore[unreachable]  # mypy does not know what a burst may call
            if waits_its_own_way:
                await (self._wait_input() if room else self._wait_room())
                continue
            # What `_wait_input`, `_wait_room` and `_park` do: two coroutines less for each trip (12 % fewer
            # instructions for a hop at capacity 1, 10 % at 16).
            outlet.settle()  # first: who hears that may stop this stage, or give it room, and nobody would wake it then
            if self.stopped is not None or (outlet.room() if not room else worth_a_pull(self.inlet)):
                self._spent += BURST  # in place of a wait: others get their turn before the next burst
                continue
            if not room:
                self.inlet.release(parking=True)
                outlet.wants_room = True
            self._begin_wait(STARVED if room else FULL)
            try:
                await self._parking
            finally:
                self._end_wait()

    def _is_slice_over(self) -> bool:
        """Whether bursts that found no room in the end make a slice together: a partition has room again at once."""
        return self._spent >= BURST or perf_counter() > self._slice_end

    def _begin(self, values: Iterator[Any]) -> None:
        """Set the chain up: the inlet's generator, and those of the fused operations over it."""
        self._task, self._parking = trio.lowlevel.current_task(), Parking(self._unpark)
        self._streams = [values]
        for operation in self.fused:
            self._streams.append(operation.stream(self._streams[-1]))
        self._may_end = any(operation.may_end for operation in self.fused)
        self._keepers = [operation for operation in self.fused if operation.may_keep]
        self._slice_end = perf_counter() + self.slice

    def _burst(self, room: int) -> Pause:
        """Move values until something ends the burst; they are committed in any case."""
        put, pause, slice_end, inlet = self.outlet.put, OVER, self._slice_end, self.inlet
        limit = left = room if room < BURST else BURST
        nothings, asked = BURST, -1
        try:
            for value in self._streams[-1]:
                if value is not NOTHING:
                    is_last = put(value) is True
                    left -= 1
                    if is_last or not left:
                        pause = FULL if left or room <= BURST else SLICE_OVER
                        self._spent += limit - left + BURST - nothings
                        break
                else:
                    nothings -= 1
                    state = inlet.state()  # `worth_a_pull` without the call: 99 of 100 values of a batch come by here
                    if (state is not IDLE and state is not HELD) or (self._keepers and self._keeps_more()):
                        asked = -1
                        if not nothings:
                            pause = SLICE_OVER
                            break
                    elif asked == left or not self._may_end:
                        pause = STARVED
                        break
                    else:
                        asked = left  # once more: one behind a `take` may have kept the last value that it wants
                if perf_counter() > slice_end:
                    pause = SLICE_OVER
                    break
        except Exception:
            if self.failure is None:  # no operation met it: a defect of this package, not to look like the user's
                raise
            self._has_raised = True
        finally:
            self.outlet.commit(limit - left)
            inlet.release()
        return pause

    def _keeps_more(self) -> bool:
        """Whether an operation would give another value without being given one."""
        return any(operation.has_more for operation in self._keepers)

    # ---- waiting

    async def _wait_input(self) -> None:
        if not worth_a_pull(self.inlet):  # a fork may have filled the room that the burst gave back
            await self._park(STARVED)

    async def _wait_room(self) -> None:
        self.inlet.release(parking=True)
        self.outlet.wants_room = True
        await self._park(FULL)

    async def _park(self, reason: Pause) -> None:
        """Wait until a neighbour calls; not if this stage was stopped, or has what it waits for, in this very turn."""
        self.outlet.settle()
        has_it = self.outlet.room() if reason is FULL else worth_a_pull(self.inlet)
        if self.stopped is not None or has_it:
            self._spent += BURST  # in place of a wait: others get their turn before the next burst
            return
        self._begin_wait(reason)
        try:
            await self._parking
        finally:
            self._end_wait()

    def _begin_wait(self, reason: Pause) -> None:
        self._parked_for = self._waits_for = reason
        self._since = self.now()

    def _end_wait(self) -> None:
        waited, self._since = self.now() - self._since, _NEVER
        if self._waits_for is FULL:
            self.waited_room += waited
        else:
            self.waited_input += waited
        self._spent, self._slice_end = 0, perf_counter() + self.slice

    def _unpark(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._parked_for = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake(self) -> None:
        if self._task is not None:
            self._parked_for = None
            trio.lowlevel.reschedule(self._task, AWAKE)

    async def _breathe(self) -> None:
        """Let others run, in the middle of a turn."""
        if self.outlet.passed == self._passed:
            self.outlet.settle()  # or a stage in which all is filtered out would hold up its neighbours
        else:
            self.outlet.unsettle()  # or a fan-in would choose without it, once in 64 items
        self._passed = self.outlet.passed
        await trio.lowlevel.checkpoint()
        self._spent, self._slice_end = 0, perf_counter() + self.slice

    # ---- failing and leaving

    @trio.lowlevel.enable_ki_protection
    def failing(self, error: BaseException, name: str, number: int, item: Any) -> NoReturn:
        """Hear from an operation that user code raised at one item; raise it, for the operations behind that one."""
        met = failure_of(error)
        if met is None:  # KeyboardInterrupt and its like end the whole run
            if item is not NOTHING:
                self.discard(item, CANCELLED)
            raise error
        self.failed += item is not NOTHING
        if self.failure is not None:  # of a later item: it let out what came before it, with which this one is met
            self.host.ledger.unread(self.failure, BEHIND_FAILURE)
        self.failure = Fault(noted(met, name, number if item is not NOTHING else None), self, item)
        raise met

    def _fails_by(self, error: BaseException) -> bool:
        """Whether what ends the task is a failure after all: a `Cancelled` that nobody around the run caused."""
        met = failure_of(error) if is_cancellation(error) else None
        if met is None:
            return False
        self._has_raised = True
        if self.failure is None:
            self.failure = Fault(noted(met, self.name, None), self)
        else:
            self.keep_cleanup_error(met)
        return True

    @trio.lowlevel.enable_ki_protection
    def discard(self, item: Any, reason: str) -> None:
        """Give up an item that this stage held."""
        self.discarded += 1
        self.host.ledger.discard(item, self.name, reason)

    def _leave(self) -> None:
        """End the stage, whatever ended it."""
        self.left = self.now()
        # A failure that an operation has met, and that did not come out of the chain: another has ended it before.
        is_ahead = self.failure is not None or _ended_ahead(self._streams)
        is_done = self.stopped is None and not self._has_raised and is_ahead
        for stream in reversed(self._streams):
            self.close_stream(stream)
        upstream = self.inlet.failure if self.inlet.exhausted else None
        later = upstream if self.failure is not None else None
        self.failure = self.failure or upstream
        if is_done and self.failure is not None:
            self.host.ledger.unread(self.failure, NOT_NEEDED)
            self.failure = None
        reason = self.stopped or reason_behind(self.failure)
        self.inlet.close(reason)
        if later is not None:
            self.host.ledger.unread(later, reason)
        for item in self._held():
            self.discard(item, reason)
        if self.stopped is not None and self.failure is None:
            # Whoever still reads (from a scope that is shielded, say) must not take this for the end of the stream.
            self.failure = Fault(Aborted(f"the run was {self.stopped}"), self, stopped=self.stopped)
        self.outlet.finish(self.failure)

    def _held(self) -> list[Any]:
        return [item for operation in self.fused for item in operation.held()]

    def close_stream(self, stream: Any) -> None:
        """Close a generator now, and not when it happens to be collected; its error is one of cleanup."""
        close = getattr(stream, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            if not (isinstance(error, Exception) or is_cancellation(error)):  # what is sync is cancelled by nobody
                raise
            self.keep_cleanup_error(error)

    def keep_cleanup_error(self, error: BaseException) -> None:
        """Keep an error of cleanup: it never takes the place of the first error, but is noted on it."""
        self.host.ledger.keep(error, f"then cleanup in stage {named(self.name)} raised {told(error)}")

    async def kept_cleanup(self, ending: Awaitable[bool]) -> None:
        """Await a cleanup that says whether it was done in time; its error or its slowness is kept, never raised."""
        try:
            is_in_time = await ending
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            if failure_of(error) is None:
                raise
            self.keep_cleanup_error(error)
        else:
            if not is_in_time:
                limit = self.host.cleanup_timeout
                self.keep_cleanup_error(
                    trio.TooSlowError(f"closing what stage {named(self.name)} opened took more than {limit:g} s")
                )


def _ended_ahead(streams: Sequence[Any]) -> bool:
    """Whether an operation ended the chain with an item that another gave out ahead of a failure, or of the end.

    That other one is open still, though what it takes from is not.
    """
    ended = [getattr(stream, "gi_frame", None) is None for stream in streams]
    return any(before and not after for before, after in itertools.pairwise(ended))
