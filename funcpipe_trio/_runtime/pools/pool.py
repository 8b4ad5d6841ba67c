"""A stage with an async call: how many calls run, which worker takes the next item, and where does the result go?

Workers take from the source directly; there is no dispatcher, no task per item and no queue between. A worker may take
an item while

    calls that run + results that wait + values in the link behind  <  concurrency + capacity of that link

so a result that waits for an earlier one uses a place of the link, and the sum is the stage's part of `max_in_flight`.
(A result that a fused operation is taking apart waits until its last part is out.)

The worker that finished a call moves all results that have their turn through the chain into the outlet. If the outlet
is full, another worker does so when it has room: by the rule above there always is one that is in no call, or that can
still be started. User code runs in this stage's tasks only.

A failure at a position: calls behind it are cancelled and their items discarded, the source is closed at once, calls
before it go on; the error leaves when its turn comes, unless an earlier one takes its place.

A pool is a crew (the workers), an order (which result is next), outcomes (what becomes of a failed call) and a chain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, ClassVar, Final

import trio

from ..._sansio.latencies import Latencies
from ..._sansio.reorder import AsCompleted, InOrder
from ...policies.on_error import Failure
from ..calls.calling import Calling, EndAt
from ..calls.own_context import OwnContext
from ..core.protocols import Inlet, worth_a_pull
from ..core.signals import BEHIND_FAILURE, END, NO_ITEM, NOT_NEEDED, PENDING, FailureMark, reason_behind
from ..core.step_counters import StepCounters
from ..core.turn import BURST
from ..core.user_code import interruptible
from ..links.link import Link
from ..links.sink import Sink
from ..stages.chain import FULL, OVER, STARVED, TURN_OVER, BurstEnd, Chain, Ends
from .crew import Crew, Worker
from .outcomes import Outcomes
from .results import ALREADY_COUNTED, PendingSkip, Results

if TYPE_CHECKING:
    from .adapting import Adapting

DEFERRED: Final[Any] = object()
"""An item was taken, but must not be worked on yet."""


class Pool:
    """Workers that call an async function.

    For subclasses: `admit` chooses the next item (with `occupied`, `staff` and `is_over`, if items can wait for
    others), `take_up` and `put_down` say what is in a worker's hands, `serve` is the work on one item, `called` its
    call; `cancel` ends a worker's work, `cancel_superfluous` all work that is not needed; `emit`, `pass_over` and
    `items_seen` say what stands in an item's place; `move_on` moves results. Each override does its own part and calls
    the one here.
    """

    crew_of: ClassVar[type[Crew]] = Crew

    def __init__(self, ends: Ends, call: Calling, *, concurrency: int, ordered: bool) -> None:
        self.order: InOrder | AsCompleted = InOrder() if ordered else AsCompleted()  # which result is next
        self.results: Results = Results(self.order, self)  # the inlet of its chain
        self.chain: Chain = Chain(ends._replace(inlet=self.results))  # what results go through
        self.call: Calling = call  # what it calls, and what it does when that fails
        self.outcomes: Outcomes = Outcomes(self, call)  # what becomes of failed calls
        counters = call.counters or StepCounters()
        self.crew: Crew = self.crew_of(self.chain, concurrency, self._employed, counters)  # its workers
        self.source: Inlet = ends.inlet  # where items come from
        self.kind: str = "async"  # as reports call it
        self.adapting: Adapting | None = None  # what chooses how many calls to make; None if that is a fixed number
        self.counters: StepCounters | None = call.counters  # what the policies of its step count; None without a step
        self.divert_counters: StepCounters | None = call.divert_counters  # likewise, of the step for failures
        self.started: bool = False  # a later input of a concat is started in its turn
        self.left: float | None = None  # when it ended; None before
        self.received: int = 0  # items that it took, which numbers them
        self.calls: int = 0  # items in the hands of workers
        self.peak: int = 0  # the most items that were in calls, or waited behind them
        self.latencies: Latencies = Latencies()  # of calls that ended
        self.taking: bool = True  # until the source has ended, or is no longer needed
        self.ended: bool = False  # the chain has given its last value
        self._items: Iterator[Any] = iter(())  # those of the source, once the pool is started
        self._gives_way: Worker | None = None
        """The worker that lets the receiver run before more is put; meanwhile none moves results on. None otherwise."""
        self.is_direct: bool = not ends.operations and type(ends.outlet) in (Link, Sink)
        """Whether a result can go into the outlet as it is: there is no operation to apply, and no route to choose."""
        # What it takes from hands an item over only when a worker waits for one (a `buffer(0)`), so that must be said.
        self._meets: bool = getattr(ends.inlet, "capacity", 1) == 0
        self._worker_waits = False  # a worker is about to wait for an item
        ends.inlet.receiver = self.results.receiver = self
        ends.host.register(self)

    # ---- what its neighbours call: sync, at any time

    def start(self) -> None:
        self.chain.began, self.started = self.chain.now(), True
        self._items = self.source.items()
        self.chain.begin()
        self.crew.begin()

    def on_input(self) -> None:
        if self.started:  # a branch that begins late is filled earlier
            self.staff()

    def wants_input(self) -> bool:
        """Whether a worker waits for an item, or can be called in for one, and there is a place for it."""
        is_free = self._worker_waits or self.crew.coming > 0 or self.crew.can_come
        return is_free and self.started and self.taking and self.has_place()

    def on_room(self) -> bool:
        is_needed = not self.ended and self.chain.stopped is None and self.has_leftovers()
        # Otherwise all are in calls, or on their way: they see the room when they come back.
        return self.crew.call_in() if self.crew.parked or is_needed else False

    def stop(self, reason: str) -> bool:
        if self.chain.stopped is not None:
            return False
        self.chain.stopped = reason
        self.taking = False
        for worker in self.crew.workers:
            self.cancel(worker)
        return True

    def on_drain(self) -> None:
        """Called when the sources are about to be told to take no more."""

    def on_pause(self) -> None:
        """Called when the sources must take nothing for a time."""

    def on_resume(self) -> None:
        """Called when the sources go on."""

    def call_instead(self, call: Calling) -> None:
        """Call something else in the same way; before it is started."""
        self.call = self.outcomes.call = call

    def set_concurrency(self, concurrency: int) -> None:
        """Change how many calls run at once, from now on; calls that run go on."""
        self.crew.size = concurrency
        if self.started and not self.ended and self.chain.stopped is None:
            self.crew.usage.resize(self.chain.now(), concurrency)
            self.staff()
            self.meet()

    # ---- what reports read

    @property
    def name(self) -> str:
        return self.chain.name

    @property
    def upstream(self) -> Inlet:
        return self.source

    @property
    def dropped(self) -> int:
        """How many items it dropped itself."""
        return self.chain.dropped

    def elsewhere(self) -> tuple[int, int]:
        """Return how many items wait without a place now, and the most that did."""
        return 0, 0

    def waits_for(self) -> str | None:
        """Return what it waits for now, or most of its calls do; None if it runs or is not at work."""
        if not self.started or self.left is not None:
            return None
        busy = [worker.context.waits_for for worker in self.crew.workers if worker.item is not NO_ITEM]
        if busy:
            return busy[0] if busy.count(busy[0]) == len(busy) else Counter(busy).most_common(1)[0][0]
        return f"room behind {self.name}" if self.chain.outlet.wants_room else "input"

    # ---- what its results and outcomes ask

    def is_over(self) -> bool:
        """Whether no further result can come."""
        return self.order.ended or not (self.taking or self.calls or len(self.order))

    def end_of_source(self) -> FailureMark | None:
        """The failure at the end of what it takes from, if one stands there."""
        return self.source.failure

    def skip(self, pending: PendingSkip) -> None:
        """Skip a failed item whose turn has come, or end the stream there if it is one too many."""
        self.outcomes.skip(pending)

    def take_no_more(self) -> None:
        """End the stream with the results that are there: no further item is needed."""
        self.taking = False
        self.source.close(NOT_NEEDED)

    def items_seen(self) -> int:
        """How many items had their turn."""
        return self.results.seen

    def reason(self) -> str:
        """Why an item of this stage is given up now."""
        if self.chain.stopped is not None:
            return self.chain.stopped
        return reason_behind(self.chain.failure or self.order.failure)

    def is_superfluous(self, worker: Worker) -> bool:
        """Whether what a worker does is no longer needed."""
        if self.order.failure is not None and self.order.is_superfluous(worker.position):
            return True
        return self.ended or self.chain.stopped is not None

    # ---- which worker comes, and is there a place for an item

    def staff(self) -> None:
        """Call a worker in for the next item, if there is one and a place for it."""
        # The worker that comes takes it, and calls in the next one. With one called in for each item, most would find
        # nothing: workers whose calls end in the same tick come first. (100 workers, short calls: 1.1 task steps an
        # item instead of 2.1.)
        crew = self.crew
        if crew.coming or not crew.can_come:
            return
        if self.taking and not worth_a_pull(self.source):
            return
        if self.taking and self.has_place():
            crew.call_in()
        elif not crew.usage.is_stalled:
            crew.usage.stall(self.chain.now(), self.chain.outlet.room() > 0)

    def has_place(self) -> bool:
        """Whether one more item may be taken."""
        # A call that runs counts against the workers, a result that waits against workers or room, so:
        size = self.crew.size
        if self.calls >= size:  # it was lowered, and there are more workers than calls allowed
            return False
        places = size - self.occupied()
        if places > 1:  # even without the room behind, which need not be asked for then
            return True
        places += self.chain.outlet.waiting_room()
        return places > 1 or (places == 1 and not self.chain.keeps_more())

    def at_work(self) -> int:
        """How many items have a place for their calls."""
        return self.calls

    def occupied(self) -> int:
        """How many items are in calls or wait behind them."""
        return self.calls + len(self.order.waiting)

    def has_leftovers(self) -> bool:
        """Whether something can leave as soon as there is room."""
        return self.order.ready or self.chain.keeps_more()

    # ---- a worker

    async def _employed(self, worker: Worker) -> None:
        chain = self.chain
        try:
            with worker.scope, closing(worker.limit):
                await self._work(worker)
        except Exception as error:
            if not worker.scope.cancel_called:
                raise  # a defect of this package: user code's errors are caught at the call
            chain.keep_cleanup_error(error)
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            if not chain.fails_by(error):
                raise
        finally:
            self._dismiss(worker)

    async def _work(self, worker: Worker) -> None:
        """Move on results that have their turn, take an item, serve it; wait when none of that can be done."""
        chain, order, turn = self.chain, self.order, worker.turn
        self.crew.coming -= 1
        turn.begin()
        worker.variables = OwnContext()
        while chain.stopped is None:
            # Most results went straight through. Asking here whether any is left, and in `take_up` whether a worker
            # comes, saves 3 to 5 % of the instructions of an item, at concurrency 10 and 100.
            is_clear = self.is_direct and self.taking and not (order.waiting and order.ready)
            end = STARVED if is_clear else self.move_on(worker)
            if self.ended:
                return
            # After a burst cut short, the rest of it goes first: from within a call this worker could not move it on.
            item = PENDING if end is TURN_OVER else self.admit()
            if item is END:
                continue
            if item is DEFERRED:
                turn.left -= 1
            elif item is not PENDING:
                if end is FULL and self.has_leftovers():
                    chain.outlet.wants_room = True  # perhaps no worker waits for room, so none has asked
                if self.crew.usage.is_stalled:
                    self.crew.usage.stall(chain.now(), False)
                await self.serve(worker, item)
                turn.left -= 1
            elif end is not TURN_OVER:
                await self._wait(worker, starved=end is not FULL and self.has_place())
                continue
            if end is TURN_OVER or turn.is_over():
                await self.rest(worker)

    def admit(self) -> Any:
        """Take an item if there is a place for it; `END` if none is left, `DEFERRED` if it waits for another."""
        if not self.taking or not self.has_place():
            return PENDING
        item = next(self._items, END)
        if item is END:
            self.taking = False
        elif item is not PENDING and not self._meets:
            self.source.release()
        return item

    def meet(self) -> None:
        """Say that an item is waited for, if what it takes from hands over only then."""
        if self._meets:
            self.source.release(parking=True)

    async def serve(self, worker: Worker, item: Any) -> None:
        """Call the function with the item, and hand in the outcome."""
        self.take_up(worker, item)
        if worker.variables.renew():
            await trio.lowlevel.checkpoint()
        if self.is_superfluous(worker):  # since the item was taken, or the checkpoint: no call begins any more
            self.give_up(worker)
            return
        try:
            result = await self.called(worker)
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            await self.outcomes.meet(worker, error)  # noqa: ASYNC102  # raises if the run is cancelled
        else:
            self.note_end(worker)
            self.put_down(worker)
            if self.is_superfluous(worker):
                self._discard_result(result, self.reason())
            elif not (self.is_direct and self.put_through(worker.position, result)):
                self.order.complete(worker.position, result)

    def called(self, worker: Worker) -> Awaitable[Any]:
        """Return what to await for the item in a worker's hands."""
        fn: Any = self.call.fn
        if not self.call.is_layered:
            return interruptible(fn, worker.item)
        worker.context.begin(worker.number)
        return fn(worker.item, worker.context)  # type: ignore[no-any-return]  # one of two shapes

    def take_up(self, worker: Worker, item: Any) -> None:
        """Put an item into a worker's hands, and call in a worker for the next item."""
        worker.item, worker.position = item, self.order.begin()
        worker.number, self.received = self.received, self.received + 1
        self.calls += 1
        occupied = self.calls + len(self.order.waiting)
        if occupied > self.peak:
            self.peak = occupied
        if not self.crew.coming:  # a worker that comes does it
            self.staff()
        self.meet()
        self.chain.turn_over()

    def note_end(self, worker: Worker) -> None:
        """Count how long a call took, which has ended; the worker's next one begins now, unless it waits first."""
        now, concerns = self.chain.now(), self.call.concerns
        if concerns is None or concerns(worker.item):
            self.latencies.add(now - worker.since)
        worker.since = now

    def put_down(self, worker: Worker) -> Any:
        """Take the item out of a worker's hands."""
        item, worker.item = worker.item, NO_ITEM
        self.calls -= 1
        return item

    async def _wait(self, worker: Worker, *, starved: bool) -> None:
        """Park until there is an item (if `starved`), a place for one, or room for a result."""
        outlet = self.chain.outlet
        if not starved:
            outlet.wants_room = True
            self.source.release(parking=True)
        elif self._meets and self.taking:
            self._worker_waits = True
            self.source.release(parking=True)
            self._worker_waits = False
            if worth_a_pull(self.source):  # it came at once
                return
        self.chain.turn_over()
        is_full_or_over = not self.taking or (not starved and worth_a_pull(self.source))
        await self.crew.park(worker, starved=starved, stalled=is_full_or_over and outlet.room() > 0)

    async def rest(self, worker: Worker) -> None:
        """Let others run."""
        self.chain.turn_over()
        try:
            await trio.lowlevel.checkpoint()
            if self._gives_way is worker:  # trio runs a batch in any order: the receiver may be behind this task
                await trio.lowlevel.checkpoint()
        finally:
            if self._gives_way is worker:
                self._gives_way = None
        worker.turn.begin()
        worker.since = self.chain.now()

    def _dismiss(self, worker: Worker) -> None:
        self.crew.dismiss(worker)
        if self._gives_way is worker:
            self._gives_way = None
        if worker.item is not NO_ITEM:  # cancelled in its call
            self.chain.discard(self.put_down(worker), self.reason())
        if not self.crew.workers:
            self.leave()
        elif not self.ended and self.chain.stopped is None:
            self.crew.wake()  # it may have been woken, and cancelled before it ran

    # ---- results

    def put_through(self, position: int, result: Any) -> bool:
        """Put a result straight into the outlet, if it has its turn and there is room; return whether it was put."""
        # The same as `move_on` would do a moment later, in a fifth of the time.
        outlet = self.chain.outlet
        if result is PENDING or isinstance(result, EndAt) or outlet.room() < 1 or not self.order.pass_by(position):
            return False
        self.results.seen += 1
        outlet.put(result)
        outlet.commit(1)
        return True

    def move_on(self, worker: Worker) -> BurstEnd:
        """Move the results that have their turn into the outlet, within the worker's turn."""
        chain, end = self.chain, FULL
        turn, outlet = chain.turn, chain.outlet
        turn.left, turn.ends_at = BURST, worker.turn.ends_at
        while end is FULL and not self.ended:
            room = outlet.room()
            if not room:
                break
            if self._gives_way is not None or (turn.left < BURST and turn.is_over()):
                return TURN_OVER
            most = outlet.burst_room()
            end = chain.burst(min(room, most))  # may report it full too early: a partition looks one ahead
            if end is FULL and most < room:  # it takes more, and drops: the receiver gets a turn first
                self._gives_way = worker
        if end is OVER and not self.ended:
            self._end()
        return end

    def emit(self, worker: Worker, failure: Failure[Any]) -> None:
        """Put the failure in the item's place."""
        self.order.complete(worker.position, failure)

    def pass_over(self, worker: Worker) -> None:
        """Let nothing come in the item's place."""
        self.order.complete(worker.position, ALREADY_COUNTED)

    # ---- giving up and leaving

    def give_up(self, worker: Worker) -> None:
        """Give up the item in a worker's hands, which is no longer needed."""
        self.chain.discard(self.put_down(worker), self.reason())

    def cancel(self, worker: Worker) -> None:
        """End a worker's work."""
        worker.scope.cancel()

    def cancel_superfluous(self) -> None:
        """End all work that is no longer needed."""
        for worker in self.crew.workers:
            if worker.item is not NO_ITEM and self.is_superfluous(worker):
                self.cancel(worker)

    def end_with(self, replaced: FailureMark | None, behind: list[Any]) -> None:
        """Give up everything behind the failure that now ends the stream."""
        self.taking = False
        self.source.close(BEHIND_FAILURE)
        if replaced is not None:
            self.chain.host.ledger.unread(replaced, BEHIND_FAILURE)
        for result in behind:
            self._discard_result(result, BEHIND_FAILURE)
        self.cancel_superfluous()

    def _end(self) -> None:
        """Called when no more values will come: all workers may end."""
        self.ended, self.taking = True, False
        self.source.close(self.reason())
        self.cancel_superfluous()
        while self.crew.parked:
            self.crew.wake()

    def leave(self) -> None:
        """End the stage, for whatever reason; called by its last worker."""
        chain, reason = self.chain, self.reason()
        self.source.close(reason)
        chain.close_stream(self._items)  # an iterable has an iterator to close
        for result in self.order.clear():
            self._discard_result(result, reason)
        if not self.results.exhausted:  # the chain has not read how the calls, or the inlet, ended
            self.results.exhausted, self.results.failure = True, self.order.failure
            if self.ended and chain.stopped is None and not chain.has_raised and self.order.failure is not None:
                self.results.failure = None  # an operation ended the stream before that place
                chain.host.ledger.unread(self.order.failure, NOT_NEEDED)
        if self.source.exhausted and self.source.failure not in (None, self.results.failure):
            chain.host.ledger.unread(self.source.failure, reason)
        self.left = chain.now()
        self.crew.usage.end(self.left)
        chain.end(chain.held)

    def _discard_result(self, result: Any, reason: str) -> None:
        if result is PENDING:
            self.chain.dropped += 1
        elif isinstance(result, PendingSkip):
            self.chain.host.ledger.keep(result.error)
            self.chain.discard(result.item, reason)
        elif result is not ALREADY_COUNTED:
            self.chain.discard(result.item if isinstance(result, EndAt) else result, reason)
