"""A stage with an async call: how many calls run, who takes the next item, and what if one fails?

Workers take from the inlet directly; there is no dispatcher, no task per item and no queue between. They are started
one by one as work comes, each by the one before it, and live until the stage ends. A worker may take an item while

    calls that run + results that wait + values in the link behind  <  concurrency + capacity of that link

so a result that waits for an earlier one uses a place of the link, and the sum is the stage's part of `max_in_flight`.
(A result that a fused operation is taking apart waits until its last part is out.)

Whoever finished a call moves on whatever results have their turn, through the fused operations, into the outlet. If the
outlet is full, another worker does so when it has room: by the rule above there always is one that is in no call, or
that can still be employed. User code runs in this stage's tasks only.

A failure at a position: calls behind it are cancelled and their items discarded, the inlet is closed at once, calls
before it go on; the error leaves when its turn comes, unless an earlier one takes its place. A policy (`OnError`) may
put something else in the item's place: nothing, a `Failure`, or, for `skip`, a `Mishap` that waits for its turn, so
that limits are held against the items in their order and not in that of their calls' ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from contextlib import closing
from functools import partial
from time import perf_counter
from typing import Any

import trio

from ..._base.errors import MisuseError
from ..._base.frozen import dataclass
from ..._sansio.reorder import AsCompleted, InOrder
from ..._sansio.tolerance import Tolerance
from ..._sansio.usage import Usage
from ...policies.on_error import Divert, Failure, Skip, Stop
from ..calls.calling import Calling, Enough
from ..calls.own_context import OwnContext
from ..core.attempt import Account, Attempt
from ..core.failures import add_note, comes_of_cancelling, failure_of, noted
from ..core.inlet import (
    BEHIND_FAILURE,
    CANCELLED,
    END,
    ENDED,
    IDLE,
    NOT_NEEDED,
    NOTHING,
    READY,
    Fault,
    Inlet,
    Receiver,
    State,
    reason_behind,
    worth_a_pull,
)
from ..core.parking import AWAKE, Parking
from ..core.protocols import Host, Outlet
from ..core.time_limit import TimeLimit
from ..core.turn import BURST
from ..core.user_code import interruptible
from ..links.link import Link
from ..links.sink import Sink
from ..operations.fused import FusedOperation
from ..stages.stage import FULL, OVER, SLICE_OVER, STARVED, Pause, Stage

ASIDE: Any = object()
"""An item was taken, but is not to be worked on yet."""
_DONE_WITH: Any = object()
"""In the place of an item that failed and was counted as that."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """An item that failed, on its way to be skipped in its turn."""

    item: Any
    error: Exception
    number: int
    attempts: str


class Worker:
    """One task of the pool, and the item in its hands."""

    __slots__ = (
        "attempt",
        "budget",
        "context",
        "item",
        "limit",
        "number",
        "parking",
        "position",
        "scope",
        "slice_end",
        "task",
    )

    attempt: Attempt
    """What the step's policies keep of the call that is made."""
    budget: int
    """Items until others have their turn."""
    context: OwnContext
    """The context variables that each of its calls begins with."""
    limit: TimeLimit
    """Of its calls, if the step has one."""
    number: int
    """Of its item in the stream, which errors name."""
    parking: Parking
    """What it waits by, made once."""
    position: int
    """Of its item in the order of the results."""
    scope: trio.CancelScope
    """Ends its call when that is no longer needed."""
    slice_end: float
    """When others must have their turn, by the real clock."""

    def __init__(self, account: Account) -> None:
        self.limit = TimeLimit(0.0, is_kept=True)
        self.attempt = Attempt(account, kept_limit=self.limit)
        self.scope = trio.CancelScope()
        self.item: Any = NOTHING  # in its hands; it is given up with it
        self.position = self.number = 0
        self.task: trio.lowlevel.Task | None = None  # while parked
        self.begin_slice(0.0)

    def begin_slice(self, seconds: float) -> None:
        """Note that others had their turn."""
        self.budget, self.slice_end = BURST, perf_counter() + seconds


class Results:
    """The pool's results as an inlet of its own chain."""

    dropped: int
    exhausted: bool
    seen: int

    receiver: Receiver

    def __init__(self, order: InOrder | AsCompleted, pool: Pool) -> None:
        self.order = order
        self.pool = pool
        self.failure: Fault | None = None
        self.exhausted = False
        self.taken = 0
        self.dropped = 0
        self.seen = 0  # results that had their turn

    def start(self) -> None:
        """Nothing runs upstream of it."""

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        order, pool = self.order, self.pool
        while True:
            if order.ready:
                result = order.pop()
                self.seen += 1
                if result is NOTHING:
                    self.dropped += 1
                elif result is _DONE_WITH:
                    result = NOTHING
                elif isinstance(result, Mishap):
                    pool.skip(result)
                    result = NOTHING
                elif isinstance(result, Enough):
                    pool.discard(result.item, NOT_NEEDED)
                    return
                yield result
            elif pool.is_over():
                self.exhausted, self.failure = True, order.failure or pool.source.failure
                return
            else:
                yield NOTHING

    def state(self) -> State:
        if self.order.ready:
            return READY
        return ENDED if self.pool.is_over() else IDLE

    def release(self, *, parking: bool = False) -> None:
        """Workers see for themselves whether there is a place."""

    def close(self, reason: str) -> None:
        """The stage closes its real inlet itself."""


class Pool(Stage):
    """Workers that call an async function."""

    concurrency: int
    """Its places: so many calls at once."""
    results: Results
    """What its chain takes from: results, in their order."""
    usage: Usage
    """How many of its places are in use, over time."""

    kind = "async"

    def __init__(
        self,
        host: Host,
        name: str,
        inlet: Inlet,
        outlet: Outlet,
        fused: Sequence[FusedOperation],
        call: Calling,
        *,
        concurrency: int,
        ordered: bool,
    ) -> None:
        self.order: InOrder | AsCompleted = InOrder() if ordered else AsCompleted()  # which result is next
        self.results = Results(self.order, self)
        super().__init__(host, name, self.results, outlet, fused)
        self.call = call  # what it calls, and what it does when that fails
        self.account, self.divert_account = call.account, call.divert_account  # what their policies count
        self._scratch = call.account or Account()  # a worker's `Attempt` counts somewhere
        # How much may be skipped, if that is what its policy does.
        self._tolerance = Tolerance(call.on_error) if isinstance(call.on_error, Skip) else None
        self.concurrency = concurrency
        self.usage = Usage()
        self._received = 0  # items that it took, which numbers them
        self.source = inlet  # where items come from; `inlet` is where results do
        inlet.receiver = self
        self._items: Iterator[Any] = iter(())  # of the source, once it runs
        self._taking = True  # until the source ended, or is no longer needed
        self._ended = False  # the chain gave its last value
        self._workers: list[Worker] = []  # all that were hired, and have not gone
        self._parked_workers: list[Worker] = []  # those who wait for an item or room; the last that came is woken first
        self._coming = 0  # workers with empty hands that were started or woken, and have not run since
        self._calls = 0  # items in the hands of workers
        self._gives_way: Worker | None = None
        """Who lets the receiver run before more is put; until then nobody moves anything on."""
        self._is_direct = not fused and type(outlet) in (Link, Sink)
        """Whether a result can go into the outlet as it is: no operation wants to see it, and no route to be chosen."""

    # ---- what its neighbours call

    def start(self) -> None:
        self.began, self.started = self.now(), True
        self.usage.begin(self.began, self.concurrency)
        self._items = self.source.items()
        self._begin(self.results.items())
        self._employ()

    def on_input(self) -> None:
        if self.started:  # a branch that begins late is filled before
            self._staff()

    def on_room(self) -> bool:
        is_needed = not self._ended and self.stopped is None and self._has_leftovers()
        # Else all are in calls, or on their way: they see the room when they come back.
        return self._call_in() if self._parked_workers or is_needed else False

    def stop(self, reason: str) -> bool:
        if self.stopped is not None:
            return False
        self.stopped = reason
        self._taking = False
        for worker in self._workers:
            self._cancel(worker)
        return True

    def _cancel(self, worker: Worker) -> None:
        """End what a worker is at."""
        worker.scope.cancel()

    @property
    def upstream(self) -> Inlet:
        return self.source

    @property
    def received(self) -> int:
        return self._received

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self.results.dropped

    def set_concurrency(self, concurrency: int) -> None:
        """Make so many calls at once from now on; calls that run go on."""
        self.concurrency = concurrency
        if self.started and not self._ended and self.stopped is None:
            self.usage.resize(self.now(), concurrency)
            self._staff()

    def is_over(self) -> bool:
        """Whether no further result can come."""
        return self.order.ended or not (self._taking or self._calls or len(self.order))

    # ---- staff

    def _staff(self) -> None:
        """See that somebody takes the next item, if there is one and a place for it."""
        # Who comes takes it, and calls in the next one. Called in for each item, most would find nothing: those whose
        # calls end in the same tick come by first. (100 workers, short calls: 1.1 task steps an item in place of 2.1.)
        if self._coming or not (self._parked_workers or len(self._workers) < self.concurrency):
            return
        if self._taking and not worth_a_pull(self.source):
            return
        if self._taking and self._has_place():
            self._call_in()
        elif not self.usage.is_stalled:
            self.usage.stall(self.now(), self.outlet.room() > 0)

    def _call_in(self) -> bool:
        if self._parked_workers:
            self._wake_worker()
            return True
        if len(self._workers) < self.concurrency:
            self._employ()
            return True
        return False

    def _employ(self) -> None:
        worker = Worker(self._scratch)
        worker.parking = Parking(partial(self._give_up_waiting, worker))
        self._workers.append(worker)
        self.usage.hire(self.now())
        self._coming += 1
        self.host.start_task(lambda: self._employed(worker), self.name)

    def _wake_worker(self) -> None:
        if self._parked_workers:
            worker = self._parked_workers.pop()
            assert worker.task is not None
            self._coming += worker.item is NOTHING
            trio.lowlevel.reschedule(worker.task, AWAKE)

    def _has_place(self) -> bool:
        # A call that runs is counted against the workers, a result that waits against workers or room, so:
        if self._calls >= self.concurrency:  # it was lowered, and there are more workers than calls to be made
            return False
        places = self.concurrency - self._occupied()
        if places > 1:  # without the room behind, which need not be asked for then
            return True
        places += self.outlet.spare()
        return places > 1 or (places == 1 and not self._keeps_more())

    def _occupied(self) -> int:
        """How many items are in calls or wait behind them."""
        return self._calls + len(self.order.waiting)

    def _has_leftovers(self) -> bool:
        """Whether something can leave as soon as there is room."""
        return self.order.ready or self._keeps_more()

    async def _employed(self, worker: Worker) -> None:
        try:
            with worker.scope, closing(worker.limit):
                await self._labour(worker)
        except Exception as error:
            if not worker.scope.cancel_called:
                raise  # a defect of this package: user code's errors are caught at the call
            self.keep_cleanup_error(error)
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            if not self._fails_by(error):
                self.stopped = self.stopped or CANCELLED
                raise
        finally:
            self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self.usage.dismiss(self.now())
        del worker.parking  # a cycle else
        if self._gives_way is worker:
            self._gives_way = None
        if worker.item is not NOTHING:  # cancelled in its call
            self._calls -= 1
            self.discard(worker.item, self._reason())
        if not self._workers:
            self._leave()
        elif not self._ended and self.stopped is None:
            self._wake_worker()  # it may have been woken, and cancelled before it ran

    def _reason(self) -> str:
        """Why an item of this stage is given up now."""
        if self.stopped is not None:
            return self.stopped
        return reason_behind(self.failure or self.order.failure)

    # ---- work

    async def _labour(self, worker: Worker) -> None:
        self._coming -= 1
        worker.begin_slice(self.slice)
        worker.context = OwnContext()
        while self.stopped is None:
            # Most results went straight through. To ask here whether any is left, and in `_take_up` whether anybody
            # comes, takes 3 to 5 % of the instructions of an item off, at concurrency 10 and 100.
            is_clear = self._is_direct and self._taking and not (self.order.waiting and self.order.ready)
            pause = STARVED if is_clear else self._move_on(worker)
            if self._ended:
                return
            # With a burst cut short, what is left of it goes first: in a call nobody could move it on.
            item = NOTHING if pause is SLICE_OVER else self._admit()
            if item is END:
                continue
            if item is ASIDE:
                worker.budget -= 1
            elif item is not NOTHING:
                if pause is FULL and self._has_leftovers():
                    self.outlet.wants_room = True  # no worker may be parked, or each for something else
                if self.usage.is_stalled:
                    self.usage.stall(self.now(), False)
                await self._serve(worker, item)
                worker.budget -= 1
            elif pause is not SLICE_OVER:
                await self._wait(worker, starved=pause is not FULL and self._has_place())
                continue
            if pause is SLICE_OVER or worker.budget <= 0 or perf_counter() > worker.slice_end:
                await self._rest(worker)

    def _admit(self) -> Any:
        """Take an item if there is a place for it."""
        if not self._taking or not self._has_place():
            return NOTHING
        item = next(self._items, END)
        if item is END:
            self._taking = False
        elif item is not NOTHING:
            self.source.release()
        return item

    async def _serve(self, worker: Worker, item: Any) -> None:
        """Call the function with the item, and hand in what comes of it."""
        self._take_up(worker, item)
        if worker.context.renew():
            await trio.lowlevel.checkpoint()
        if self._is_superfluous(worker):  # by then, or by whatever gave the item: no call begins any more
            self.discard(self._put_down(worker), self._reason())
            return
        try:
            result = await self._called(worker)
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            await self._meet(worker, error)  # noqa: ASYNC102  # raises if the run is cancelled
        else:
            self._put_down(worker)
            if self._is_superfluous(worker):
                self._discard_result(result, self._reason())
            elif not (self._is_direct and self._put_through(worker.position, result)):
                self.order.complete(worker.position, result)

    def _put_through(self, position: int, result: Any) -> bool:
        """Put a result straight into the outlet, if it is its turn and there is room; say whether it was."""
        # What `_move_on` would do with it a moment later, for a fifth of its time.
        outlet = self.outlet
        if result is NOTHING or isinstance(result, Enough) or outlet.room() < 1 or not self.order.pass_by(position):
            return False
        self.results.seen += 1
        outlet.put(result)
        outlet.commit(1)
        return True

    def _called(self, worker: Worker) -> Awaitable[Any]:
        """Give what to await for the item in a worker's hands."""
        fn: Any = self.call.fn
        if not self.call.is_layered:
            return interruptible(fn, worker.item)
        worker.attempt.begin(worker.number)
        return fn(worker.item, worker.attempt)  # type: ignore[no-any-return]  # one of two shapes

    def _take_up(self, worker: Worker, item: Any) -> None:
        worker.item, worker.position = item, self.order.begin()
        worker.number, self._received = self._received, self._received + 1
        self._calls += 1
        if not self._coming:  # who comes sees to the rest
            self._staff()  # the next one may begin
        self.outlet.settle()

    def _put_down(self, worker: Worker) -> Any:
        item, worker.item = worker.item, NOTHING
        self._calls -= 1
        return item

    # ---- failures

    async def _meet(self, worker: Worker, raised: BaseException) -> None:
        """Do what the policy says with an item whose call failed; call it while what was raised is handled."""
        policy, error = self.call.on_error, failure_of(raised)
        if error is None:
            raise raised
        if isinstance(policy, Stop) or isinstance(error, MisuseError) or self._is_superfluous(worker):
            self._failed_at(worker, error)
            return
        if isinstance(policy, Skip):
            attempts = self._attempts(worker)
            self.order.complete(worker.position, Mishap(self._put_down(worker), error, worker.number, attempts))
            return
        failure = self._failure_of(worker, error)
        if isinstance(policy, Divert):
            await self._divert(worker, failure)
        else:
            self._count(failure.error)
            self._put_down(worker)
            self._emit(worker, failure)

    def _failure_of(self, worker: Worker, error: Exception) -> Failure[Any]:
        met = noted(error, self.name, worker.number, self._attempts(worker))
        return Failure(worker.item, met, self.name, worker.attempt.tried if self.call.is_layered else 1)

    def _attempts(self, worker: Worker) -> str:
        attempt = worker.attempt
        return f", attempt {attempt.tried} of {attempt.of}" if self.call.is_layered and attempt.of is not None else ""

    def _emit(self, worker: Worker, failure: Failure[Any]) -> None:
        """Put the failure in the item's place."""
        self.as_failures += 1
        self.order.complete(worker.position, failure)

    async def _divert(self, worker: Worker, failure: Failure[Any]) -> None:
        """Give the failure to the step for it; the worker keeps the item until that is done."""
        assert self.call.divert is not None
        assert self.divert_account is not None
        is_kept = True  # else the error that was to be dealt with is nowhere
        try:
            await self.call.divert(failure, Attempt(self.divert_account, worker.number))
            is_kept = False
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            # The error that it is about is the context of this one: `_meet` is called while that is handled.
            error = failure_of(raised)
            if error is None:
                raise
            is_kept = self._is_superfluous(worker)
            add_note(error, f"diverting a {type(failure.error).__name__}")
            self._failed_at(worker, error)
            return  # noqa: ASYNC104  # the error is kept at its place
        finally:
            if is_kept or self._is_superfluous(worker):
                self.host.ledger.keep(failure.error)
        if self._is_superfluous(worker):
            self.discard(self._put_down(worker), self._reason())
            return
        self._count(failure.error)
        self._put_down(worker)
        self.failed += 1
        self._pass_over(worker)

    def _pass_over(self, worker: Worker) -> None:
        """Let nothing come in the item's place."""
        self.order.complete(worker.position, _DONE_WITH)

    def _count(self, error: Exception) -> None:
        self.failures[type(error).__name__] += 1

    def skip(self, mishap: Mishap) -> None:
        """Skip a failed item whose turn has come, or end the stream there if it is one too many."""
        assert self._tolerance is not None
        self.failed += 1
        limit = self._tolerance.failed(self.items_seen())
        if limit is None:
            self._count(mishap.error)
            return
        met = noted(mishap.error, self.name, mishap.number, mishap.attempts)
        add_note(met, limit)
        self._ends_with(*self.order.end(Fault(met, self, mishap.item)))

    def items_seen(self) -> int:
        """How many items had their turn."""
        return self.results.seen

    def _is_superfluous(self, worker: Worker) -> bool:
        if self.order.failure is not None and self.order.is_superfluous(worker.position):
            return True
        return self._ended or self.stopped is not None

    def _failed_at(self, worker: Worker, error: Exception) -> None:
        """Take the failure of one call: it ends the stream at its position, and what is behind that is given up."""
        if self._is_superfluous(worker):
            if comes_of_cancelling(error):
                self.keep_cleanup_error(error)
            else:  # of an item that nobody needs any more
                self.host.ledger.keep(error)
            self.discard(self._put_down(worker), self._reason())
            return
        met = noted(error, self.name, worker.number, self._attempts(worker))
        item = self._put_down(worker)
        self.failed += 1
        self._ends_with(*self.order.fail(worker.position, Fault(met, self, item)))

    def _ends_with(self, replaced: Fault | None, behind: list[Any]) -> None:
        """Give up everything behind the failure that now ends the stream."""
        self._taking = False
        self.source.close(BEHIND_FAILURE)
        if replaced is not None:
            self.host.ledger.unread(replaced, BEHIND_FAILURE)
        for result in behind:
            self._discard_result(result, BEHIND_FAILURE)
        self._cancel_superfluous()

    def _cancel_superfluous(self) -> None:
        for worker in self._workers:
            if worker.item is not NOTHING and self._is_superfluous(worker):
                self._cancel(worker)

    def _move_on(self, worker: Worker) -> Pause:
        """Move the results that have their turn into the outlet, one burst of them."""
        pause, self._slice_end, self._spent = FULL, worker.slice_end, 0
        while pause is FULL and not self._ended:
            room = self.outlet.room()
            if not room:
                break
            if self._gives_way is not None or (self._spent and self._is_slice_over()):
                return SLICE_OVER
            turn = self.outlet.turn()
            pause = self._burst(min(room, turn))  # which may find it full before it is: a partition looks one ahead
            if pause is FULL and turn < room:  # it takes more, and drops: the receiver gets a turn before that
                self._gives_way = worker
        if pause is OVER and not self._ended:
            self._end()
        return pause

    def _end(self) -> None:
        """No more values will come: everyone may go."""
        self._ended, self._taking = True, False
        self.source.close(self._reason())
        self._cancel_superfluous()
        while self._parked_workers:
            self._wake_worker()

    # ---- waiting

    async def _wait(self, worker: Worker, *, starved: bool) -> None:
        """Park until there is an item (if `starved`), a place for one, or room for a result."""
        if not starved:
            self.outlet.wants_room = True
            self.source.release(parking=True)
        self.outlet.settle()
        worker.task = trio.lowlevel.current_task()
        self._parked_workers.append(worker)
        now = self.now()
        self.usage.park(now, starved)
        is_full_or_over = not self._taking or (not starved and worth_a_pull(self.source))
        if (is_full_or_over and self.outlet.room() > 0) is not self.usage.is_stalled:
            self.usage.stall(now, not self.usage.is_stalled)
        try:
            await worker.parking
        finally:
            self._coming -= worker.item is NOTHING
            worker.begin_slice(self.slice)
            self.usage.unpark(self.now(), starved)

    def _give_up_waiting(self, worker: Worker, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._parked_workers.remove(worker)
        self._coming += worker.item is NOTHING  # until it runs, as if it were woken
        return trio.lowlevel.Abort.SUCCEEDED

    async def _rest(self, worker: Worker) -> None:
        self.outlet.settle()
        try:
            await trio.lowlevel.checkpoint()
            if self._gives_way is worker:  # trio runs a batch in any order: the receiver may have been behind this task
                await trio.lowlevel.checkpoint()
        finally:
            if self._gives_way is worker:
                self._gives_way = None
        worker.begin_slice(self.slice)

    # ---- leaving

    def _leave(self) -> None:
        reason = self._reason()
        self.source.close(reason)
        self.close_stream(self._items)  # an iterable has an iterator to close
        for result in self.order.clear():
            self._discard_result(result, reason)
        if not self.results.exhausted:  # nobody has read how the calls, or the inlet, ended
            self.results.exhausted, self.results.failure = True, self.order.failure
            if self._ended and self.stopped is None and not self._has_raised and self.order.failure is not None:
                self.results.failure = None  # an operation ended the stream before it came to that
                self.host.ledger.unread(self.order.failure, NOT_NEEDED)
        if self.source.exhausted and self.source.failure not in (None, self.results.failure):
            self.host.ledger.unread(self.source.failure, reason)
        super()._leave()

    def _discard_result(self, result: Any, reason: str) -> None:
        if result is NOTHING:
            self.results.dropped += 1
        elif isinstance(result, Mishap):
            self.host.ledger.keep(result.error)
            self.discard(result.item, reason)
        elif result is not _DONE_WITH:
            self.discard(result.item if isinstance(result, Enough) else result, reason)
