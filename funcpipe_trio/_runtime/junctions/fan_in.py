"""Several inlets as one: from which input does the next item come?

A fan-in has no task and no buffer. The stage behind it pulls, and the choice is made in that pull: what a fair merge
hands over is the fairest item at that instant, not the fairest of some time ago.

The rule of every fan-in here: an input is REFILLING while its producer was woken for room and has not run. It counts as
backlogged, so nothing is handed over until it has run. Without this the order in which the scheduler runs a batch of
tasks would decide the shares (measured with weights 10 and 1: a share of .55 instead of .91).

The failure of an input stands where its next item would have stood; what the other inputs still hold is then behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import trio

from ..._base import checks
from ..._base.shown import named
from ..._sansio.fair_queue import FairQueue, Flow
from ..._sansio.state_times import StateTimes
from ...policies.fair_share import FairShare
from ..core.failures import failure_of, noted
from ..core.ledger import Ledger
from ..core.protocols import Inlet, Receiver, worth_a_pull
from ..core.signals import (
    BEHIND_FAILURE,
    CANCELLED,
    END,
    ENDED,
    FAILED,
    IDLE,
    NOT_NEEDED,
    PENDING,
    READY,
    REFILLING,
    FailureMark,
    Readiness,
    reason_behind,
)

_ENDS = (ENDED, FAILED)


class FanInInlet:
    """What all fan-ins share: inputs that report to it, an end, and counters."""

    def __init__(self, name: str, ledger: Ledger, inlets: Sequence[Inlet]) -> None:
        self.name = name  # as plans, reports and errors call it
        self.ledger = ledger  # told of what is discarded here
        self.inlets: Sequence[Inlet] = inlets  # all its inputs, in the order of the plan, also those that have ended
        self.receiver: Receiver  # what takes from it; is told when a pull may find more
        self.failure: FailureMark | None = None  # what stands at its end; None without one
        self.exhausted = False  # it was read to its end
        self.taken = 0  # values that it handed over
        self.made = 0  # those of them that it made itself, of no item
        self.failed = 0  # items at which user code raised here
        self.dropped = 0  # items that a newer one superseded here
        self._closed = False  # no more is taken from it
        self._reason = NOT_NEEDED  # why, once it was closed

    def on_input(self) -> None:
        self.receiver.on_input()

    def state(self) -> Readiness:
        raise NotImplementedError

    def items(self) -> Iterator[Any]:
        raise NotImplementedError

    def _inlets(self) -> Sequence[Inlet]:
        """Return the inputs that are at work."""
        raise NotImplementedError

    def start(self) -> None:
        for inlet in self._inlets():
            inlet.start()

    def release(self, *, parking: bool = False) -> None:
        for inlet in self._inlets():
            inlet.release(parking=parking)

    def drain(self) -> None:
        """Called when the sources take no more."""

    def pause(self) -> None:
        """Called when the sources take nothing for a time."""

    def resume(self) -> None:
        """Called when they go on."""

    def close(self, reason: str) -> None:
        if not self._closed and not self.exhausted:
            self._closed, self._reason = True, reason
            self._close_inputs(reason)

    def _end(self, failure: FailureMark | None) -> None:
        """End here: what the inputs still hold is not needed, or is behind the failure."""
        self.exhausted, self.failure = True, failure
        self._close_inputs(reason_behind(failure))

    def _close_inputs(self, reason: str) -> None:
        for inlet in self._inlets():
            inlet.close(reason)

    @property
    def held(self) -> int:
        """How many items that were taken from its inputs it holds itself."""
        return 0

    def remade(self) -> tuple[int, int]:
        """Return how many items it used up, and how many values it made."""
        return 0, self.made

    def discard(self, item: Any, reason: str) -> None:
        """Discard an item that was taken from an input and does not go on."""
        self.ledger.discard(item, self.name, reason)


class MergeInput:
    """One input of a merge: the receiver of its inlet."""

    __slots__ = (
        *("contested", "ended", "failure", "flow", "inlet", "is_refilling", "is_waiting", "items", "key"),
        *("longest_wait", "merge", "since"),
    )

    def __init__(self, merge: MergeInlet, key: Hashable, inlet: Inlet, flow: Flow[int]) -> None:
        self.merge = merge  # whose input it is
        self.key = key  # the name of the input, which has a weight
        self.inlet = inlet  # where its items come from
        self.flow = flow  # its account in the fair queue
        self.items = inlet.items()  # of the inlet
        self.is_refilling = False  # REFILLING when the merge last looked: its producer must run before the next choice
        self.ended = False  # the merge has seen its end
        self.failure: str | None = (
            None  # the type of the error with which it failed, where a policy deals with that; else None
        )
        self.is_waiting = False  # it has an item, or counts as backlogged
        self.since = 0.0  # when its last item was taken, or since when it has waited
        self.longest_wait = 0.0  # the most seconds for which it waited and none was taken, except the wait of now
        self.contested: int | Fraction = 0  # cost of the items handed over while every input had one
        inlet.receiver = self

    def on_input(self) -> None:
        self.merge.refresh(self)

    def serve(self, now: float) -> None:
        """Count how long it waited for an item to be taken."""
        waited, self.since = now - self.since, now
        if waited > self.longest_wait:
            self.longest_wait = waited

    def backlog(self) -> int:
        """Return how many items wait in it."""
        return _held(self.inlet)


class MergeInlet(FanInInlet):
    """A merge by weights: start-time fair queueing over the inputs that have an item now."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        inputs: Sequence[tuple[Hashable, Inlet]],
        share: FairShare[Any],
        queue: FairQueue[int] | None = None,
    ) -> None:
        super().__init__(name, ledger, [inlet for _, inlet in inputs])
        self.share = share  # the weights of the inputs, and what an item costs
        self.has_shares = queue is None  # the weights are the user's: they can be set, and who got what is told
        self._queue: FairQueue[int] = queue or FairQueue()  # chooses; its flows are numbered as the inputs are
        self.inputs = [  # in the order of the plan
            MergeInput(self, key, inlet, self._queue.add(number, share.weight_of(key)))
            for number, (key, inlet) in enumerate(inputs)
        ]
        self._refilling = 0  # inputs whose producers must run before the next choice
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time  # for how long inputs waited
        self._open = len(self.inputs)  # inputs that have not ended
        self._serving = False  # within a pull: its choice must stand until it is charged
        self._changed: list[MergeInput] = []  # inputs that changed within it, to be looked at afterwards
        self._new_weights: list[tuple[Flow[int], int | Fraction]] = []  # set within it, to be applied afterwards

    def input_keys(self) -> list[Hashable]:
        """Return the names of the inputs."""
        return [each.key for each in self.inputs]

    def lags(self) -> dict[int, Fraction]:
        """Return by what cost each input that has an item is behind its share, by its number."""
        return self._queue.lags()

    def set_weight(self, key: Hashable, weight: int | Fraction) -> None:
        """Change the weight of an input, from the next choice on."""
        flow = next(each.flow for each in self.inputs if each.key == key)
        if self._serving:  # by the cost function of the item that is being handed over: its choice must stand
            self._new_weights.append((flow, weight))
        else:
            self._queue.set_weight(flow, weight)

    def _inlets(self) -> Sequence[Inlet]:
        return [each.inlet for each in self.inputs]

    def start(self) -> None:
        super().start()
        for each in self.inputs:
            self.refresh(each)

    def refresh(self, each: MergeInput) -> None:
        """Look at one input again, after it changed."""
        if self._serving:  # it may refill what is being pulled
            self._changed.append(each)
            return
        self._look(each)
        self.receiver.on_input()  # in any case: a fan-in behind this one may wait for it until then

    def _look(self, each: MergeInput) -> None:
        state = each.inlet.state()
        is_refilling = state is REFILLING
        if is_refilling is not each.is_refilling:
            each.is_refilling = is_refilling
            self._refilling += 1 if is_refilling else -1
        if state is READY or state is FAILED:  # a failure comes in its turn, where the next item would
            self._queue.ready(each.flow)
            if not each.is_waiting:
                each.is_waiting, each.since = True, self.now()
        elif not is_refilling:
            self._queue.idle(each.flow)
            each.is_waiting = False
            if state is ENDED and not each.ended:
                each.ended = True
                self._open -= 1
                next(each.items, None)  # reads the end: a zip then closes its longer inputs, which nothing else would

    def state(self) -> Readiness:
        if self._refilling:
            return REFILLING
        flow = self._queue.select()
        if flow is not None:
            return self.inputs[flow.key].inlet.state()
        return IDLE if self._open else ENDED

    def release(self, *, parking: bool = False) -> None:
        """Nothing: each pull tells the input that it took from."""

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        queue, inputs, cost_of = self._queue, self.inputs, self.share.cost
        while self._open and not self._closed:
            flow = None if self._refilling else queue.select()
            if flow is None:
                yield PENDING
                continue
            each = inputs[flow.key]
            contested = queue.backlogged == len(inputs)
            self._serving = True
            value = next(each.items, END)
            if value is END:
                self._serving = False
                if (value := self._at_end(each)) is END:
                    return
                yield value
                continue
            try:
                cost = 1 if cost_of is None else self._cost(cost_of, value)
            except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
                error = failure_of(raised)
                if error is None:  # KeyboardInterrupt and its like end the whole run
                    self.discard(value, CANCELLED)
                    raise
                self.failed += 1
                self._end(FailureMark(noted(error, self.name, self.taken), self, value))
                return  # noqa: ASYNC104  # the error goes out as a failure
            each.serve(self.now())
            each.inlet.release()
            cost = queue.charge(flow, cost, still_ready=True)
            self._serving = False
            self._look(each)
            while self._changed:
                self._look(self._changed.pop())
            while self._new_weights:
                queue.set_weight(*self._new_weights.pop(0))
            if contested:
                each.contested += cost
            self.taken += 1
            yield value
        self.exhausted = True

    def _at_end(self, each: MergeInput) -> Any:
        """Called when an input that was chosen has failed: return what takes the place of its next item, or `END`."""
        self._end(each.inlet.failure)
        return END

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _cost(self, fn: Callable[[Any], Any], item: Any) -> int | Fraction:
        """Return what an item costs, as the user's function says, checked."""
        return checks.cost(f"merge {named(self.name)}", "cost", fn(item))


def _held(inlet: Inlet) -> int:
    """Return how many items wait in an inlet; those of a fan-in in all its inputs."""
    if isinstance(inlet, FanInInlet):
        return inlet.held + sum(_held(each) for each in inlet.inlets)
    held: int = getattr(inlet, "held", 0)  # a branch that has ended has none
    return held


class ConcatInlet(FanInInlet):
    """One input after the other; the next is started when the one before has ended."""

    def __init__(self, name: str, ledger: Ledger, inlets: Sequence[Inlet]) -> None:
        super().__init__(name, ledger, inlets)
        self._left = deque(inlets)  # that have not ended; the first of them runs, once this was started
        self._started = False  # so the next input may be started
        self._values: Iterator[Any] = inlets[0].items() if inlets else iter(())  # of the one that runs
        for inlet in inlets:
            inlet.receiver = self

    def _inlets(self) -> Sequence[Inlet]:
        return list(self._left)[:1]

    def start(self) -> None:
        self._started = True
        super().start()
        self._start_next()  # an input may be empty from the start

    def _close_inputs(self, reason: str) -> None:
        # Also those that never ran, as the run may own their channels; a copy, as `on_discard` may drain the run.
        for inlet in list(self._left):
            inlet.close(reason)

    def on_input(self) -> None:
        self._start_next()
        super().on_input()

    def state(self) -> Readiness:
        return self._left[0].state() if self._left else ENDED

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        while self._left and not self._closed:
            value = next(self._values, END)
            if value is END:  # the end of an input is read by `_start_next`, so this one failed
                self._end(self._left[0].failure)
                return
            if value is not PENDING:
                self.taken += 1
                self._start_next()
            yield value
        self.exhausted = not self._closed

    def _start_next(self) -> None:
        """Start the next input as soon as the one that runs has ended."""
        while self._started and self._left and self._left[0].state() is ENDED and not self._closed:
            next(self._values, None)  # reads the end
            self._left.popleft()
            if self._left:
                self._values = self._left[0].items()
                self._left[0].start()


class AlignedInlet(FanInInlet):
    """A fan-in that hands over nothing while an input has nothing; it notes which those are."""

    def __init__(
        self, name: str, ledger: Ledger, inlets: Sequence[Inlet], state_times: StateTimes[tuple[int, int]]
    ) -> None:
        super().__init__(name, ledger, inlets)
        self._state_times = state_times  # told which inputs have nothing
        self.shift = state_times.allot(len(inlets), lambda: self._lacking)  # where its field is there
        self._lacking = 0  # what is in it
        for inlet in inlets:
            inlet.receiver = self

    def _inlets(self) -> Sequence[Inlet]:
        return self.inlets

    def _needed(self) -> Iterable[int]:
        """Return the numbers of the inputs that must have something for the next hand-over."""
        return range(len(self.inlets))

    def on_input(self) -> None:
        self._note_lacking()
        super().on_input()

    def release(self, *, parking: bool = False) -> None:
        self._note_lacking()
        super().release(parking=parking)

    def _note_lacking(self) -> None:
        """Note which inputs have nothing: who waits here waits for those."""
        lacking = 0
        for bit in self._needed():
            if not worth_a_pull(self.inlets[bit]):
                lacking |= 1 << bit
        if lacking != self._lacking:
            change, self._lacking = lacking - self._lacking, lacking
            self._state_times.change(trio.current_time(), change << self.shift)


class ZipInlet(AlignedInlet):
    """Tuples of one item from each input; it takes them all in one pull, or none."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        inlets: Sequence[Inlet],
        state_times: StateTimes[tuple[int, int]],
        *,
        strict: bool,
        make: Callable[[list[Any]], Any] = tuple,
    ) -> None:
        super().__init__(name, ledger, inlets, state_times)
        self._make = make  # makes a value of one item of each input
        self._takers = [inlet.items() for inlet in inlets]  # of the inputs
        self._strict = strict  # it fails if an input is shorter than another; not once the run drains

    def remade(self) -> tuple[int, int]:
        return self.taken * len(self.inlets), self.taken

    def drain(self) -> None:
        """Accept inputs of different lengths from now on: they are cut where the sources stopped."""
        if self._strict:
            self._strict = False
            self.on_input()

    def state(self) -> Readiness:
        # The first input in order that has no item decides, as in the builtin, whatever the schedule.
        states = [inlet.state() for inlet in self.inlets]
        first = next((state for state in states if state is not READY), None)
        if first is None:
            return READY if states else ENDED
        if not self._strict or first not in _ENDS:
            return first
        # A strict zip ends only when each input is known to have an item or to have ended; without error if all ended.
        waiting = next((state for state in states if state is IDLE or state is REFILLING), None)
        if waiting is not None:
            return waiting
        return ENDED if all(state is ENDED for state in states) else FAILED

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        while not self._closed:
            state = self.state()
            if state in _ENDS:
                self._zip_ended()
                return
            if state is not READY:
                yield PENDING
                continue
            values = self._take_all()
            if values is None:
                return
            self.taken += 1  # tuples
            yield self._make(values)

    def _take_all(self) -> list[Any] | None:
        """Return one item of each input; None if one failed in this pull (in the cost function of a merge, say)."""
        values: list[Any] = []
        for inlet, taker in zip(self.inlets, self._takers, strict=True):
            value = next(taker, END)
            if value is END:
                for taken in values:
                    self.discard(taken, self._reason if self._closed else BEHIND_FAILURE)
                if not self._closed:  # else a user's function has just stopped the run: this is not the end
                    self._end(inlet.failure)
                return None
            values.append(value)
        for inlet in self.inlets:
            inlet.release()
        return values

    def _zip_ended(self) -> None:
        """End at the first input that has no item; a strict zip looks at all of them."""
        ended = [number for number, inlet in enumerate(self.inlets) if inlet.state() is not READY]
        for number in ended if self._strict else ended[:1]:
            next(self._takers[number], None)  # reads the end
            if self.inlets[number].failure is not None:
                self._end(self.inlets[number].failure)
                return
        if self._strict and len(ended) != len(self.inlets):
            error = ValueError(
                f"zip {named(self.name)}: input {ended[0]} ended after {self.taken} items, others did not"
            )
            self._end(FailureMark(noted(error, self.name, None), self))
        else:
            self._end(None)
