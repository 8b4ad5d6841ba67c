"""From an inlet through operations to an outlet: how do values move, and what ends that?

A chain is the inlet's generator and one generator for each operation over it. `burst` pulls values from the last of
them and appends them to the outlet: as many as the outlet has room for, at most as many as are left of the turn. It
pulls only while the outlet has room, so a value goes from the inlet to the outlet within one turn and nothing is in
the chain at a checkpoint, except what an operation holds on purpose (a batch not yet full, an item that is still being
expanded); that can be swept.

A chain always ends through `end`, in this order: the inlet is closed unless it was read to its end (so all upstream
stops at once), what is held is discarded with a reason, the end goes behind the items of the outlet.

A chain never waits and has no task: a `Stage` drives one, the workers of a `Pool` drive one together.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from time import perf_counter
from typing import Any, NamedTuple, NoReturn

import trio

from ..._base.errors import Aborted
from ..._base.shown import named, told
from ..core.failures import failure_of, is_cancellation, noted
from ..core.protocols import Host, Inlet, Outlet
from ..core.signals import (
    BEHIND_FAILURE,
    CANCELLED,
    IDLE,
    NO_ITEM,
    NOT_NEEDED,
    PENDING,
    REFILLING,
    FailureMark,
    reason_behind,
)
from ..core.turn import BURST, Turn
from ..operations.base import FusedOperation


class BurstEnd(Enum):
    """Why a burst ended; its members are also names of this module, as those of `Readiness` are."""

    FULL = "the outlet has no room"
    STARVED = "the inlet has nothing now"
    TURN_OVER = "others must run"
    OVER = "no more values will come"


FULL, STARVED, TURN_OVER, OVER = BurstEnd


class Ends(NamedTuple):
    """What a chain stands between, and what it does there."""

    host: Host
    """The run, as far as its parts know it."""
    name: str
    """As plans, reports and errors call it."""
    inlet: Inlet
    """Where values come from."""
    outlet: Outlet
    """Where they go."""
    operations: Sequence[FusedOperation]
    """What is done with them in between, in this order."""


class Chain:
    """Moves values from an inlet through operations to an outlet, and counts what becomes of them."""

    def __init__(self, ends: Ends) -> None:
        self.host: Host = ends.host  # see `Ends`, for these five
        self.name: str = ends.name
        self.inlet: Inlet = ends.inlet
        self.outlet: Outlet = ends.outlet
        self.operations: Sequence[FusedOperation] = ends.operations
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        """The clock, in half the time of `trio.current_time`; asked twice a trip."""
        self.began: float = 0.0  # when its stage was started; what is timed of it counts from there
        self.turn: Turn = Turn(self.host.turn_seconds)  # of the task that drives it: how long it may go on
        self.stopped: str | None = None
        """Why it is no longer needed, which is the reason of what it gives up then; None while it is needed."""
        self.failure: FailureMark | None = None  # what ended it, to go behind all that went out
        self.has_raised: bool = False  # a generator raised in a pull, so the failure was reached, not left behind
        self.is_wound_up: bool = False  # it has ended, except that the end may not have been passed on
        self.failed: int = 0  # items at which user code raised, except those that became a `Failure`
        self.as_failures: int = 0  # items that a policy replaced by a `Failure`
        self.discarded: int = 0  # items given up while it held them
        self.dropped: int = 0  # items that its stage itself dropped; operations count their own, likewise below
        self.created: int = 0  # values that its stage made of others
        self.absorbed: int = 0  # items that its stage made others of
        self._failures: Counter[str] | None = None  # see `failures`
        self._streams: list[Iterator[Any]] = []  # a generator for the inlet, and one for each operation
        self._may_end = any(operation.may_end for operation in self.operations)
        """Whether an operation may end the stream by itself."""
        self._keepers = [operation for operation in self.operations if operation.may_keep]
        """Those that may give several values for one."""
        self.burst: Callable[[int], BurstEnd] = self._burst  # see there; replaced where a run is watched
        self.turn_over: Callable[[], None] = self.outlet.turn_over
        """Called when its stage has done what it could in this turn; a loop around it wants to know that, too."""
        for operation in self.operations:
            operation.chain = self

    @property
    def failures(self) -> Counter[str]:
        """Errors that a policy dealt with, by the names of their types; made when asked for: most chains meet none."""
        if self._failures is None:
            self._failures = Counter()
        return self._failures

    @property
    def has_failures(self) -> bool:
        """Whether `failures` has been asked for."""
        return self._failures is not None

    # ---- moving values

    def begin(self) -> None:
        """Set up the generators of the inlet and of the operations over it."""
        self._streams = [self.inlet.items()]
        for operation in self.operations:
            self._streams.append(operation.stream(self._streams[-1]))
        self.turn.begin()

    def _burst(self, room: int) -> BurstEnd:
        """Move at most `room` values, until something ends the burst; they are committed in any case."""
        put, end, turn, inlet = self.outlet.put, OVER, self.turn, self.inlet
        self.outlet.begin()
        ends_at = turn.ends_at
        limit = left = room if room < BURST else BURST
        nothings, asked = BURST, -1
        try:
            for value in self._streams[-1]:
                if value is not PENDING:
                    is_last = put(value) is True
                    left -= 1
                    if is_last or not left:
                        end = FULL if left or room <= BURST else TURN_OVER
                        turn.left -= limit - left + BURST - nothings
                        break
                else:
                    nothings -= 1
                    state = inlet.state()  # `worth_a_pull` without the call: 99 of 100 values of a batch pass here
                    if (state is not IDLE and state is not REFILLING) or (self._keepers and self.keeps_more()):
                        asked = -1
                        if not nothings:
                            end = TURN_OVER
                            break
                    elif asked == left or not self._may_end:
                        end = STARVED
                        break
                    else:
                        asked = left  # pull once more: an operation behind a `take` may have kept the last value
                if perf_counter() > ends_at:
                    end = TURN_OVER
                    break
        except Exception:
            if self.failure is None:  # it passed no operation: a defect of this package, not to look like the user's
                raise
            self.has_raised = True
        finally:
            self.outlet.commit(limit - left)
            inlet.release()
        return end

    def keeps_more(self) -> bool:
        """Whether an operation would give another value without being given one."""
        return any(operation.has_more for operation in self._keepers)

    # ---- failing

    @property
    def is_cut_off(self) -> bool:
        """Whether the values end because they are not needed, or with a failure upstream, and not with the stream."""
        return self.stopped is not None or (self.inlet.exhausted and self.inlet.failure is not None)

    @trio.lowlevel.enable_ki_protection
    def failing(self, error: BaseException, name: str, number: int, item: Any) -> NoReturn:
        """Called when user code raised in an operation, at one item: raise the error, for the operations behind it."""
        met = failure_of(error)
        if met is None:  # KeyboardInterrupt and its like end the whole run
            if item is not NO_ITEM:
                self.discard(item, CANCELLED)
            raise error
        self.failed += item is not NO_ITEM
        if self.failure is not None:  # of a later item: its operation let out what came before it, and that fails here
            self.host.ledger.unread(self.failure, BEHIND_FAILURE)
        self.failure = FailureMark(noted(met, name, number if item is not NO_ITEM else None), self, item)
        raise met

    def fails_by(self, error: BaseException) -> bool:
        """Whether what ends the task is a failure after all: a `Cancelled` that no scope around the run caused."""
        met = failure_of(error) if is_cancellation(error) else None
        if met is None:
            self.stopped = self.stopped or CANCELLED
            return False
        self.has_raised = True
        if self.failure is None:
            self.failure = FailureMark(noted(met, self.name, None), self)
        else:
            self.keep_cleanup_error(met)
        return True

    @trio.lowlevel.enable_ki_protection
    def discard(self, item: Any, reason: str) -> None:
        """Give up an item that was held here."""
        self.discarded += 1
        self.host.ledger.discard(item, self.name, reason)

    # ---- ending

    def end(self, held: Callable[[], Sequence[Any]]) -> None:
        """End the chain, for whatever reason; `held` hands out, and forgets, what its stage and operations hold."""
        if not self.is_wound_up:
            self.wind_up(held)
        if self.stopped is not None and self.failure is None:
            # A task that still reads (in a shielded scope, say) must not take this for the end of the stream.
            self.failure = FailureMark(Aborted(f"the run was {self.stopped}"), self, stopped=self.stopped)
        self.outlet.finish(self.failure)
        self.turn_over()

    def wind_up(self, held: Callable[[], Sequence[Any]]) -> None:
        """End the chain as `end` does, but do not pass the end on yet."""
        self.is_wound_up = True
        # An operation ended the stream before the place of the failure, or of the end: nothing reads that far.
        is_ahead = self.failure is not None or _ended_ahead(self._streams)
        is_done = self.stopped is None and not self.has_raised and is_ahead
        self.close()
        upstream = self.inlet.failure if self.inlet.exhausted else None
        later = upstream if self.failure is not None else None  # the input failed, too, behind what ended this chain
        self.failure = self.failure or upstream
        if is_done and self.failure is not None:
            self.host.ledger.unread(self.failure, NOT_NEEDED)
            self.failure = None
        reason = self.stopped or reason_behind(self.failure)
        self.inlet.close(reason)
        if later is not None:
            self.host.ledger.unread(later, reason)
        for item in held():
            self.discard(item, reason)

    def close(self) -> None:
        """Close the generators, the last one first."""
        for stream in reversed(self._streams):
            self.close_stream(stream)

    def held(self) -> list[Any]:
        """Hand out, and forget, what the operations hold."""
        return [item for operation in self.operations for item in operation.held()]

    def close_stream(self, stream: Any) -> None:
        """Close a generator or iterator now, not when it is collected; its error is one of cleanup."""
        close = getattr(stream, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            if not (isinstance(error, Exception) or is_cancellation(error)):  # no scope cancels what is sync
                raise
            self.keep_cleanup_error(error)

    def keep_cleanup_error(self, error: BaseException) -> None:
        """Keep an error of cleanup: it never replaces the first error, but is noted on it."""
        self.host.ledger.keep(error, f"then cleanup in stage {named(self.name)} raised {told(error)}")

    def kept_cleanup(self, ending: Awaitable[bool]) -> Awaitable[None]:
        """Await a cleanup that returns whether it was done in time; its error or slowness is kept, never raised."""
        return self.host.ledger.kept_cleanup(ending, f"stage {named(self.name)}", self.host.cleanup_timeout)


def _ended_ahead(streams: Sequence[Any]) -> bool:
    """Whether an operation ended the chain with an item that another gave out ahead of a failure, or of the end.

    That other operation is still open, though what it takes from is not.
    """
    ended = [getattr(stream, "gi_frame", None) is None for stream in streams]
    return any(before and not after for before, after in itertools.pairwise(ended))
